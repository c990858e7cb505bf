package client

import (
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/pki"
	"culvert/internal/tunnel"
	"culvert/internal/tunnel/ws"
)

// serverOf runs a client against a server whose session the test holds itself.
func serverOf(t *testing.T, upstreams ...Upstream) *tunnel.Session {
	t.Helper()
	return <-sessionsOf(t, upstreams...)
}

// sessionsOf runs a client against a server whose sessions, one after the other, the test holds itself.
func sessionsOf(t *testing.T, upstreams ...Upstream) <-chan *tunnel.Session {
	t.Helper()
	return sessionsOver(t, quiet, func(net.Conn) {}, upstreams...)
}

// sessionsOver tells of each connection too, before the session on it.
func sessionsOver(t *testing.T, log *slog.Logger, tell func(net.Conn), upstreams ...Upstream) <-chan *tunnel.Session {
	t.Helper()
	sessions := make(chan *tunnel.Session)
	var begun []*tunnel.Session // the handler's until the client has ended
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := ws.Upgrade(w, r)
		if err != nil {
			return
		}
		tell(conn)
		m, err := mux.Server(conn, mux.Config{})
		if err != nil {
			return
		}
		s, h, err := tunnel.Accept(context.Background(), m)
		if err != nil {
			return
		}
		_ = s.Welcome(tunnel.Welcome{Answers: make([]tunnel.Answer, len(h.Offers))})
		begun = append(begun, s)
		sessions <- s
	}))
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(web.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Path = "wss", ws.Path
	c, err := New(Config{
		URLs: []*url.URL{u}, Token: auth.NewSecret("t0ken"), Trust: pki.Trust{CAFile: ca}, Upstreams: upstreams, Log: log,
		Drain: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		for _, s := range begun {
			s.Close(nil)
		}
		web.Close()
	})
	return sessions
}

// TestWhatIsNotOfferedIsNotDialled is T8: a server that asks for what the client does not offer.
func TestWhatIsNotOfferedIsNotDialled(t *testing.T) {
	canary, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer canary.Close()
	offered := Upstream{Tunnel: tunnel.TCPName(2222), Scheme: SchemeTCP, Network: "tcp", Address: "127.0.0.1:1", Spec: "2222=127.0.0.1:1"}
	s := serverOf(t, offered)
	port := uint16(canary.Addr().(*net.TCPAddr).Port)
	for _, name := range []tunnel.Name{tunnel.TCPName(port), tunnel.TCPName(22), tunnel.PrivateName("db")} {
		st, err := s.Open(t.Context(), tunnel.Open{Tunnel: name, Host: canary.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		var refusal *mux.Refusal
		if err := st.Result(t.Context()); !errors.As(err, &refusal) || tunnel.Reason(refusal.Code) != tunnel.NoSuchTunnel {
			t.Errorf("%s: got %v, want no such tunnel", name, err)
		}
		_ = st.Reset()
	}
	dialled := make(chan struct{})
	go func() {
		defer close(dialled)
		if c, err := canary.Accept(); err == nil {
			c.Close()
			t.Error("the client dialled what it does not offer")
		}
	}()
	// What is offered is dialled, and answered with what came of that.
	st, err := s.Open(t.Context(), tunnel.Open{Tunnel: offered.Tunnel})
	if err != nil {
		t.Fatal(err)
	}
	var refusal *mux.Refusal
	if err := st.Result(t.Context()); !errors.As(err, &refusal) || tunnel.Reason(refusal.Code) != tunnel.Refused {
		t.Errorf("service that refuses: got %v, want refused", err)
	}
	_ = st.Reset()
	canary.Close()
	<-dialled
}
