package dataplane

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// flood has visitors come one after the other until stop is called, and counts those who were served. A visitor who
// connects must be served; one who is refused tries again.
func flood(t *testing.T, addr string) (served *atomic.Int64, stop func()) {
	t.Helper()
	served = new(atomic.Int64)
	var wait sync.WaitGroup
	done := make(chan struct{})
	once := func() error {
		c, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			return err
		}
		served.Add(1)
		return nil
	}
	for range 4 {
		wait.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := once(); err != nil {
					t.Errorf("a visitor who connected: %v", err)
					return
				}
			}
		})
	}
	return served, func() { close(done); wait.Wait() }
}

// Whatever a reload replaces, members, whole upstreams, the way to reach them, there is no moment without a member.
func TestAReloadLosesNoVisitor(t *testing.T) {
	d := start(t)
	addr, app := free(t, "tcp"), []string{named(t, "app1"), named(t, "app2")}
	plans := make([]string, 4)
	for i := range plans {
		plans[i] = fmt.Sprintf(`
entrypoints:
  - {name: devices, addr: %q, routes: [{match: {source: [10.0.0.0/8]}, upstream: u%d}, {upstream: u%[2]d}]}
upstreams:
  - {name: u%[2]d, members: [{address: %[3]q}], connect: {timeout: %[4]ds}}
`, addr, i/2, app[i%2], 2+i)
	}
	apply(t, d, read(t, plans[0], nil))
	served, stop := flood(t, addr)
	for i := 0; i < 200 || served.Load() < 50 && !t.Failed(); i++ {
		apply(t, d, read(t, plans[i%len(plans)], nil))
	}
	stop()
}

// An entrypoint that opens has its routes before its first visitor has come through.
func TestAnEntrypointServesItsFirstVisitor(t *testing.T) {
	d := start(t)
	addr, app := free(t, "tcp"), named(t, "app")
	var routes strings.Builder
	for i := range 200 { // so that it takes a while
		fmt.Fprintf(&routes, "{match: {source: [10.0.%d.0/24]}, upstream: app}, ", i)
	}
	there := read(t, fmt.Sprintf(`
entrypoints:
  - {name: devices, addr: %q, routes: [%s{upstream: app}]}
upstreams:
  - {name: app, members: [{address: %q}]}
`, addr, routes.String(), app), nil)
	other := read(t, fmt.Sprintf(`
entrypoints:
  - {name: other, addr: %q, routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: %q}]}
`, free(t, "tcp"), app), nil)
	for range 20 {
		_, stop := flood(t, addr)
		apply(t, d, there)
		v := visit(t, "127.0.0.1", addr)
		v.Close()
		stop()
		apply(t, d, other)
		await(t, "the port closes", func() bool { return refuses(addr) })
	}
}
