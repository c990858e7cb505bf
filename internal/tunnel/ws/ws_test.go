package ws

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a TLS server and returns how to reach it.
func serve(t *testing.T, h http.HandlerFunc) Dial {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Path = "wss", Path
	return Dial{URL: u, TLS: &tls.Config{RootCAs: pool}, Header: http.Header{"Authorization": {"Bearer t0ken"}}, Timeout: 5 * time.Second}
}

// echo upgrades and sends back what comes.
func echo(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer t0ken" {
			t.Errorf("authorization: got %q", got)
		}
		c, err := Upgrade(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}
}

func TestBytesPassBothWays(t *testing.T) {
	c, err := serve(t, echo(t)).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("culvert "), 1<<18) // 2 MiB, more than any buffer on the way
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("the echo differs, err %v", err)
	}
}

func TestCloseReachesThePeer(t *testing.T) {
	ended := make(chan error, 1)
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := Upgrade(w, r)
		if err == nil {
			_, err = io.Copy(io.Discard, c)
			c.Close()
		}
		ended <- err
	})
	c, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-ended // whatever the error: the read has ended
}

func TestAnswersOtherThanAnUpgrade(t *testing.T) {
	var elsewhere atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Store(true) }))
	defer other.Close()
	tests := map[string]struct {
		handler http.HandlerFunc
		status  int
		text    string
	}{
		"unauthorised": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "wrong token", 401) }, 401, "wrong token"},
		"not there":    {http.NotFound, 404, "404 page not found"},
		"redirect":     {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, 302) }, 302, ""},
		"long answer":  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, strings.Repeat("x", 1<<20), 500) }, 500, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := serve(t, tt.handler).Connect(t.Context())
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Status != tt.status || tt.text != "" && refusal.Text != tt.text || len(refusal.Text) > 1024 {
				t.Errorf("got %v, want a refusal with %d %q", err, tt.status, tt.text)
			}
		})
	}
	if elsewhere.Load() {
		t.Error("a redirect was followed")
	}
}

func TestAnotherProtocolOnTheWebSocket(t *testing.T) {
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err == nil {
			_, _, _ = c.Read(r.Context())
		}
	})
	if _, err := d.Connect(t.Context()); err == nil {
		t.Error("connected to what is not culvert")
	}
}

func TestVisitorWithoutTheProtocolIsRefused(t *testing.T) {
	refused := make(chan error, 1)
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := Upgrade(w, r)
		refused <- err
	})
	transport := &http.Transport{TLSClientConfig: d.TLS}
	defer transport.CloseIdleConnections()
	c, _, err := websocket.Dial(t.Context(), d.URL.String(), &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err == nil {
		_, _, err = c.Read(t.Context())
	}
	if err == nil || <-refused == nil {
		t.Error("a stranger's websocket was taken")
	}
}

// TestThroughAnHTTPProxy uses a real CONNECT proxy, which wants a password.
func TestThroughAnHTTPProxy(t *testing.T) {
	var tunnels atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") == "" {
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
		tunnels.Add(1)
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer up.Close()
		down, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, down) }()
		_, _ = io.Copy(down, up)
	}))
	defer proxy.Close()
	d := serve(t, echo(t))
	u, _ := url.Parse(proxy.URL)
	u.User = url.UserPassword("me", "secret")
	d.Proxy = http.ProxyURL(u)
	c, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("hi"))
	got := make([]byte, 2)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hi" || tunnels.Load() != 1 {
		t.Errorf("got %q, %v, %d tunnels", got, err, tunnels.Load())
	}
	u.User = nil
	if _, err := d.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "Proxy Authentication Required") {
		t.Errorf("without a password: got %v", err)
	}
}
