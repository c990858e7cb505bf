//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Idle connections cost two descriptors and little memory each (section 7.11): 10,000 of them where the limit of
// descriptors lets the balancer have both sides, else as many as it lets.
func TestLBIdleConnections(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	count := min(rounds(4000, 10000), int(limit.Max/2)-500)
	if raceEnabled {
		count = min(count, 1000) // the detector has its own memory
	}
	// The services are other processes: their descriptors would be this one's.
	_, app := startMember(t, "tcp", "app")
	addr := freeAddr(t)
	b := startLB(t, oneEntrypoint(addr, memberList(app)))
	for range 50 { // what the first connections alone cost
		if v := visitMember(addr, answerTime); v.err != nil {
			t.Fatal(v.err)
		}
	}
	base := b.resources(t)
	before, _ := b.memory(t)
	conns := make([]*talk, count)
	var wait sync.WaitGroup
	next := make(chan int, count)
	for i := range conns {
		next <- i
	}
	close(next)
	for range 16 {
		wait.Go(func() {
			for i := range next {
				c, err := net.DialTimeout("tcp", addr, patience)
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = newTalk(c)
				if _, err := conns[i].says("hello", patience); err != nil { // both ways have carried something
					t.Errorf("connection %d: %v", i, err)
				}
				conns[i].lines = nil
			}
		})
	}
	wait.Wait()
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	})
	if t.Failed() {
		return
	}
	var fds float64
	var each int64
	eventually(t, patience, "buffers of idle connections are given back", func(context.Context) error {
		now, _ := b.memory(t)
		each = (now - before) / int64(count)
		fds = float64(b.descriptors(t)-base.descriptors) / float64(count)
		if each > 20<<10 && !raceEnabled {
			return fmt.Errorf("%d bytes a connection", each)
		}
		return nil
	})
	t.Logf("%d idle connections: %.2f descriptors and %.1f KiB each", count, fds, float64(each)/1024)
	if fds > 2.02 {
		t.Errorf("%.2f descriptors a connection, want 2", fds)
	}
	for _, i := range []int{0, count / 2, count - 1} {
		again := newTalk(conns[i].Conn)
		if s := again.mustSay(t, "still"); s.by != "app" {
			t.Errorf("%+v", s)
		}
	}
	for _, c := range conns {
		c.Close()
	}
	b.settles(t, base)
	out := b.out.String()
	if strings.Contains(out, "too many open files") {
		t.Error("the balancer ran out of descriptors")
	}
}
