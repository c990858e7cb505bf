package client

import (
	"io"
	"net"
	"testing"
	"time"

	"culvert/internal/tunnel"
)

// A server that goes down tells its clients. They look for another at once, and serve what still comes through the old one.
func TestASessionElsewhereWhileTheServerGoesDown(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	name := tunnel.TCPName(2222)
	sessions := sessionsOf(t, Upstream{Tunnel: name, Scheme: SchemeTCP, Network: "tcp", Address: ln.Addr().String(), Spec: "2222=echo"})
	old := <-sessions
	if err := old.GoAway(tunnel.GoAway{Reason: tunnel.Shutdown}); err != nil {
		t.Fatal(err)
	}
	fresh := <-sessions
	select {
	case g := <-old.GoneAway():
		if g.Reason != tunnel.Moved {
			t.Errorf("the old server is told %q, want %q", g.Reason, tunnel.Moved)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the old server is not told that the client has moved")
	}
	for which, s := range map[string]*tunnel.Session{"old": old, "new": fresh} {
		st, err := s.Open(t.Context(), tunnel.Open{Tunnel: name})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Result(t.Context()); err != nil {
			t.Errorf("a connection through the %s session: %v", which, err)
		}
		_ = st.Reset()
	}
	// The old server ends; the client stays with the new one.
	old.Close(nil)
	select {
	case <-sessions:
		t.Error("a third session")
	case <-fresh.Done():
		t.Error("the new session ended with the old one")
	case <-time.After(time.Second): // the client would be back within half of it
	}
}
