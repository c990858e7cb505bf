package client

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
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

// A session that the server has given up while its connection was lost is over: a new one begins, and nobody is told that the
// old one is tried again, least of all by a client that goes down just then.
func TestASessionThatTheServerHasGivenUpIsNotTriedAgain(t *testing.T) {
	log := wordsOf{up: make(chan struct{}, 9)}
	conns := make(chan net.Conn, 9)
	sessions := sessionsOver(t, slog.New(slog.NewTextHandler(&log, nil)), func(c net.Conn) { conns <- c }, Upstream{Tunnel: tunnel.TCPName(2222), Scheme: SchemeTCP, Network: "tcp", Address: "127.0.0.1:1", Spec: "2222=x"})
	<-sessions
	select {
	case <-log.up:
	case <-time.After(5 * time.Second):
		t.Fatal("the client has no session")
	}
	_ = (<-conns).Close()
	select {
	case <-sessions:
	case <-time.After(10 * time.Second):
		t.Fatal("no new session")
	}
	if text := log.String(); strings.Contains(text, "connection lost, trying again") || !strings.Contains(text, "does not know the session") {
		t.Errorf("the log has\n%s", text)
	}
}

// wordsOf is a log that may be read while it is written.
type wordsOf struct {
	mu   sync.Mutex
	text strings.Builder
	up   chan struct{} // told of each tunnel that is up
}

func (w *wordsOf) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes.Contains(p, []byte("tunnel is up")) {
		w.up <- struct{}{}
	}
	return w.text.Write(p)
}

func (w *wordsOf) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}
