package client

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/mux"
	"culvert/internal/tunnel"
	"culvert/internal/upstream/health"
)

// sessions makes both ends of a session with the client's hello.
func sessions(t *testing.T, h tunnel.Hello) (client, server *tunnel.Session, got tunnel.Hello) {
	t.Helper()
	a, b := net.Pipe()
	mc, err := mux.Client(a, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ms, err := mux.Server(b, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		var err error
		if server, got, err = tunnel.Accept(t.Context(), ms); err == nil {
			err = server.Welcome(tunnel.Welcome{Answers: make([]tunnel.Answer, len(h.Offers))})
		}
		answered <- err
	}()
	client, _, err = tunnel.Connect(t.Context(), mc, h)
	if err = errors.Join(err, <-answered); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close(nil)
		server.Close(nil)
	})
	return client, server, got
}

func TestTheServerHearsOfEachService(t *testing.T) {
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := up.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	defer func() {
		_ = up.Close()
		<-served
	}()
	check := &health.Check{Kind: health.TCP, Interval: 250 * time.Millisecond, Fall: 2, Rise: 2}
	web, db, plain := tunnel.TCPName(80), tunnel.TCPName(5432), tunnel.TCPName(22)
	const gone = "127.0.0.1:14999" // the kernel gives it to nobody meanwhile
	c, err := New(Config{
		URLs: []*url.URL{{Scheme: "wss", Host: "127.0.0.1:1"}}, Log: slog.New(slog.DiscardHandler), Weight: 3, Backup: true, Upstreams: []Upstream{
			{Tunnel: web, Scheme: SchemeTCP, Network: "tcp", Address: up.Addr().String(), Check: check},
			{Tunnel: db, Scheme: SchemeTCP, Network: "tcp", Address: gone, Check: check},
			{Tunnel: plain, Scheme: SchemeTCP, Network: "tcp", Address: gone},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := c.checks.start()
	defer stop()
	c.checks.await(t.Context())
	h := c.hello(0)
	got := map[string]bool{}
	for _, o := range h.Offers {
		got[o.Tunnel] = o.Down == ""
		if o.Weight != 3 || !o.Backup {
			t.Errorf("offer %+v has not the client's weight", o)
		}
	}
	if d := cmp.Diff(map[string]bool{web.String(): true, db.String(): false, plain.String(): true}, got); d != "" {
		t.Fatalf("offered as up (-want +got):\n%s", d)
	}

	client, server, _ := sessions(t, h)
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		c.checks.report(t.Context(), client, h)
	}()
	_ = up.Close()
	if got := <-server.HealthChanged(); got.Tunnel != web.String() || got.Up || got.Error == "" {
		t.Errorf("got %+v, want that %s is down", got, web)
	}
	back, err := net.Listen("tcp", gone)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if got := <-server.HealthChanged(); got != (tunnel.Health{Tunnel: db.String(), Up: true}) {
		t.Errorf("got %+v, want that %s is up", got, db)
	}
	// A server that comes later hears nothing that it was told in the hello.
	if h := c.hello(1); h.Offers[0].Down == "" || h.Offers[1].Down != "" {
		t.Errorf("next hello: %+v", h.Offers)
	}
	client.Close(nil)
	<-reported
}

func TestAServiceThatHasNotBeenCheckedIsOfferedAsDown(t *testing.T) {
	c := newChecks(slog.New(slog.DiscardHandler))
	name := tunnel.TCPName(80)
	if err := c.add(Upstream{Tunnel: name, Network: "tcp", Address: "192.0.2.1:1", Check: &health.Check{Kind: health.TCP}}, Config{}); err != nil {
		t.Fatal(err)
	}
	if c.down(name) == "" {
		t.Error("offered as up")
	}
	c.tell(name, true, nil)
	if why := c.down(name); why != "" {
		t.Errorf("after the first check: down, %s", why)
	}
}
