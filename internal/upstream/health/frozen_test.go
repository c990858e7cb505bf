//go:build unix

package health

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process that is stopped: the kernel goes on accepting for it, so that connecting tells nothing. An answer that does not
// come tells.
func TestAFrozenProcess(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asService+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = strings.TrimSpace(addr)

	const interval, timeout, fall = 500 * time.Millisecond, 500 * time.Millisecond, 2
	type told struct {
		up bool
		at time.Time
	}
	run := func(c Check) (changes chan told, checker *Checker) {
		c.Interval, c.Timeout, c.Fall, c.Rise = interval, timeout, fall, 1
		changes = make(chan told, 8)
		checker, err := New(Config{Check: c, Network: "tcp", Address: addr, OnChange: func(up bool, _ error) { changes <- told{up, time.Now()} }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() {
			defer close(ran)
			checker.Run(ctx)
		}()
		t.Cleanup(func() {
			cancel()
			<-ran
		})
		if first := <-changes; !first.up {
			t.Fatal("down at the start")
		}
		return changes, checker
	}
	connect, connecting := run(Check{Kind: TCP})
	talk, _ := run(Check{Kind: Expect, Send: "are you there\r\n", Expect: "you said are you there"})

	frozen := time.Now()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	down := <-talk
	if took := down.at.Sub(frozen); down.up || took > fall*interval+timeout+2*time.Second { // a busy machine
		t.Errorf("expect: up %v after %s, want down within %s", down.up, took, fall*interval+timeout)
	}
	t.Logf("expect: down %s after the process froze", down.at.Sub(frozen).Round(time.Millisecond))
	if s := connecting.Status(); len(connect) > 0 || !s.Up {
		t.Errorf("tcp: told of %d changes; the kernel accepts for a process that is stopped", len(connect))
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if back := <-talk; !back.up {
		t.Error("expect: still down after the process went on")
	}
}
