package pki

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testToken = "cvt_0a1b2c3d_CANARY-not-to-be-seen-on-any-wire-000000"
	testID    = "0a1b2c3d"
)

// clock is a clock that a test sets. It is safe for concurrent use.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func openAuthority(t *testing.T, cfg Config) *Authority {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	a, err := OpenAuthority(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serveConns hands what a listener on loopback accepts to handle, which owns it, until the test ends.
func serveConns(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { handle(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// serveHTTP runs an HTTP server on loopback, over TLS if there is a configuration for it.
func serveHTTP(t *testing.T, cfg *tls.Config, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if cfg != nil {
		l = tls.NewListener(l, cfg)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return addr
}

// serveAuthority runs a control plane as far as this package is concerned: bootstrap, and a page that takes a token.
func serveAuthority(t *testing.T, a *Authority) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(CAPath, CAHandler(a.CA(), knows(testID, testToken)))
	mux.HandleFunc("/connect", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+testToken {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	return serveHTTP(t, &tls.Config{GetCertificate: a.GetCertificate}, mux)
}

// knows is the digest lookup of a server with one token.
func knows(id, token string) func(string) ([sha256.Size]byte, bool) {
	return func(got string) ([sha256.Size]byte, bool) {
		return sha256.Sum256([]byte(token)), got == id
	}
}

// connect is what a client does once it has a CA: it verifies, and only then sends the token.
func connect(ctx context.Context, addr, serverName, token string, pool *x509.CertPool) error {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: serverName})
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/connect", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Close = true
	if err := req.Write(c); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		err = errors.New(string(answer))
	}
	return err
}

// wantWords checks an error's text, and that what it was made of is still in it.
func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error does not say %q:\n%s", w, err)
		}
	}
	if strings.Contains(err.Error(), "CANARY") {
		t.Errorf("error contains the token: %s", err)
	}
}
