//go:build linux

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// A server that restarts knows no session: it says so, and nobody waits for one that cannot come back.
func TestRestartedServerIsServedAtOnce(t *testing.T) {
	t.Parallel()
	for range rounds(1, 10) {
		restartServer(t)
	}
}

func restartServer(t *testing.T) {
	t.Helper()
	l, e := startLedger(t), startEcho(t)
	s := startServer(t)
	tunnel, echo := freeAddr(t), freeAddr(t)
	c := s.client(t, "--upstream", port(t, tunnel)+"="+l.Addr().String(), "--upstream", port(t, echo)+"="+e.addr)
	accepts(t, "tcp", tunnel)
	if v := visitLedger(tunnel, patience); v.err != nil {
		t.Fatal(v.err)
	}
	dialEcho(t, echo).echoes(t, patience)

	s.kill(t)
	s.again(t)
	ready := time.Now()
	took := served(t, ready, func() visit { return visitLedger(tunnel, answerTime) })
	t.Logf("a visitor is served %v after the server is ready again", took)
	if took > 3*time.Second {
		t.Errorf("a visitor is served %v after the server is ready again, want 3 s at most", took)
	}
	// A service learns that its visitor is gone.
	eventually(t, 10*time.Second, "the service's connections from before end", func(context.Context) error {
		if n := e.open.Load(); n > 0 {
			return fmt.Errorf("%d are open", n)
		}
		return nil
	})
	t.Logf("the service's connection from before has ended %v after the server was ready", time.Since(ready))
	s.settlesWithout(t, c)
}
