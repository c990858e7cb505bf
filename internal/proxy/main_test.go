package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"culvert/internal/hostname"
	"culvert/internal/router"
	"culvert/internal/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// closedPort is an address that nothing listens on, and whose port the kernel gives to nobody.
const closedPort = "127.0.0.1:1"

// pair is both ends of a connection.
func pair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln := listen(t)
	near, err := net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err = ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// service serves each connection with handle, one after the other as they come, and says what it listens on.
func service(t testing.TB, handle func(*net.TCPConn)) string {
	t.Helper()
	ln := listen(t)
	var all sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	return ln.Addr().String()
}

// echo sends back what it gets while it gets it, and ends when the peer has ended.
func echo(c *net.TCPConn) { _, _ = io.Copy(c, struct{ io.Reader }{c}) }

// static is a member with an address of its own.
func static(addr string, p upstream.Protocol) *upstream.Static {
	return upstream.NewStatic(upstream.StaticConfig{Network: "tcp", Address: addr, Protocol: p})
}

func upstreamOf(members ...upstream.Member) *upstream.Upstream {
	u := upstream.New(upstream.Config{Name: "test", Retries: -1})
	for _, m := range members {
		u.Add(upstream.Placed{Member: m})
	}
	return u
}

// told is a member whose dials do as they are told.
type told struct {
	name     string
	protocol upstream.Protocol
	dial     func(context.Context, *upstream.Visit) (upstream.Dialed, error)
}

func (m *told) Name() string                { return m.name }
func (m *told) Protocol() upstream.Protocol { return m.protocol }

func (m *told) Dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	return m.dial(ctx, v)
}

// failing is a member that gives no connection.
func failing(name string, r upstream.Reason, maybeSent bool) *told {
	return &told{name: name, dial: func(context.Context, *upstream.Visit) (upstream.Dialed, error) {
		return upstream.Dialed{}, &upstream.DialError{Member: name, Reason: r, MaybeSent: maybeSent, Err: errors.New("told to")}
	}}
}

// site is a server of ours in front of upstreams, and a visitor's browser.
type site struct {
	*HTTP
	url     string
	visitor *http.Client
}

// newSite routes every host to the members.
func newSite(t testing.TB, metrics *Metrics, members ...upstream.Member) *site {
	t.Helper()
	all, err := hostname.ParsePattern("*")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := router.NewHTTP([]router.HTTPRoute{{Host: all, Upstream: "u"}})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, metrics)
	s.SetRoutes(routes, map[string]*upstream.Upstream{"u": upstreamOf(members...)})
	return s
}

func newServer(t testing.TB, metrics *Metrics) *site {
	t.Helper()
	h := NewHTTP(HTTPConfig{Metrics: metrics, Log: quiet()})
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.Start()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		srv.Close()
		h.Close()
	})
	return &site{h, srv.URL, &http.Client{Transport: transport}}
}

// member serves HTTP with the handler and is a member.
func member(t testing.TB, h http.HandlerFunc) *upstream.Static {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.Start()
	t.Cleanup(srv.Close)
	return static(srv.Listener.Addr().String(), upstream.HTTP1)
}

// do sends a request and reads all of the answer.
func (s *site) do(t testing.TB, method, path string, body []byte, header http.Header) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	res, err := s.visitor.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	p, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(p)
}
