package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/auth"
	"culvert/internal/client"
	"culvert/internal/config"
	"culvert/internal/control"
	"culvert/internal/cork"
	"culvert/internal/entrypoint"
	"culvert/internal/forwardproxy/proxytest"
	"culvert/internal/mux"
	"culvert/internal/tunnel"
	carrier "culvert/internal/tunnel/tls"
)

// startClientBy starts a client that reaches the server by a scheme, through a proxy unless it is nil.
func startClientBy(t *testing.T, scheme string, control net.Addr, proxy *url.URL, list ...client.Upstream) {
	t.Helper()
	cfg := config.NewClient(config.Mixed)
	u := &url.URL{Scheme: scheme, Host: control.String()}
	if scheme != "tls" {
		u.Path = "/connect"
	}
	cfg.URLs, cfg.ProxyURL, cfg.Token, cfg.Upstreams = []*url.URL{u}, proxy, auth.NewSecret(token), list
	cfg.AutoTLS = scheme != "ws"
	c, err := NewClient(cfg, Version{"test", "sha"}, discard)
	if err != nil {
		t.Fatal(err)
	}
	r := start(c.Run)
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("client: %v", err)
		}
	})
}

func TestEachCarrierWithAndWithoutProxies(t *testing.T) {
	proxies := map[string]func() (*proxytest.Proxy, error){
		"without a proxy":       nil,
		"through an HTTP proxy": func() (*proxytest.Proxy, error) { return proxytest.HTTP("me", "secret", nil) },
		"through a SOCKS proxy": func() (*proxytest.Proxy, error) { return proxytest.SOCKS5("me", "secret") },
	}
	for _, scheme := range []string{"wss", "tls", "ws"} {
		for name, start := range proxies {
			t.Run(scheme+" "+name, func(t *testing.T) {
				cfg := serverConfig(t.TempDir())
				cfg.AutoTLS, cfg.InsecurePlaintext = scheme != "ws", scheme == "ws"
				s, _ := startServer(t, cfg)
				var via *url.URL
				if start != nil {
					p, err := start()
					if err != nil {
						t.Fatal(err)
					}
					defer func() {
						// One for the server's authority, if it is asked for, and one for the session at least.
						if n, want := p.Tunnels.Load(), map[bool]int64{true: 1, false: 2}[scheme == "ws"]; n < want {
							t.Errorf("%d connections went through the proxy, want %d", n, want)
						}
					}()
					t.Cleanup(p.Close)
					via = p.URL
				}
				port := freePort(t)
				startClientBy(t, scheme, s.ControlAddr(), via, upstreams(t, fmt.Sprintf("%d=%s", port, service(t, "echo")))...)
				await(t, "the tunnel", func() bool {
					answer, err := ask(port, "hi")
					return err == nil && answer == "echo hi"
				})
			})
		}
	}
}

func TestClientsOfBareTLSThatAreRefusedAreCounted(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	d := carrier.Dial{
		Addr: s.ControlAddr().String(), TLS: &tls.Config{InsecureSkipVerify: true}, Token: "wrong", Timeout: 5 * time.Second,
	}
	var refusal *carrier.Refusal
	if _, err := d.Connect(t.Context()); !errors.As(err, &refusal) || refusal.Status != carrier.Refused {
		t.Errorf("got %v, want a refusal", err)
	}
	await(t, "the count", func() bool { return refused(t, s)["culvert_controlplane token"] == 1 })
}

// A server that goes down takes links of sessions that it has, and nobody else.
func TestServerThatGoesDownTakesNoNewSession(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	s.sessions.GoAway(t.Context())
	d := carrier.Dial{
		Addr: s.ControlAddr().String(), TLS: &tls.Config{InsecureSkipVerify: true}, Token: token, Timeout: 5 * time.Second,
	}
	conn, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := mux.Client(conn, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var gone *tunnel.GoAway
	_, _, err = tunnel.Connect(t.Context(), m, tunnel.Hello{ID: "a", Instance: "b"})
	if !errors.As(err, &gone) || gone.Reason != tunnel.Shutdown {
		t.Errorf("got %v, want that it is going down", err)
	}
}

func TestHTTPGoesOnBesideBareTLS(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{carrier.Protocol, "http/1.1"}, // the server prefers HTTP
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + s.ControlAddr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
}

// pipes is a listener without a network, for bubbles of synctest.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (pipes) Close() error   { return nil }
func (pipes) Addr() net.Addr { return &net.UnixAddr{} }

// stalling is a stranger's connection on which only the first bytes are sent.
type stalling struct {
	net.Conn
	left int
	sent int
}

func (s *stalling) Write(p []byte) (int, error) {
	n := min(len(p), s.left)
	s.left -= n
	s.sent += n
	if n > 0 {
		if _, err := s.Conn.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func TestStrangersWhoStallOnBareTLSAreGoneInTime(t *testing.T) {
	pair := selfSigned(t)
	synctest.Test(t, func(t *testing.T) {
		sessions := control.New(control.Config{
			Verify: func(string) (*auth.Bearer, error) { return nil, errors.New("wrong token") },
			Log:    discard, Metrics: control.NewMetrics(prometheus.NewRegistry(), true, true),
		})
		strangers := make(pipes)
		guard := entrypoint.NewGuard(strangers, entrypoint.GuardConfig{Log: discard, Deadline: preAuthTimeout})
		var ended atomic.Int64
		ln := entrypoint.NewSplit(entrypoint.NewTLS(cork.Listener{Listener: guard}, entrypoint.TLSConfig{
			TLS: &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1", carrier.Protocol}}, Log: discard,
		}), carrier.Protocol, func(c *tls.Conn) {
			if sessions.ServeTLS(c, func() { t.Error("a stranger was admitted") }) != nil {
				ended.Add(1)
			}
		})
		serving := make(chan struct{})
		go func() {
			defer close(serving)
			if c, err := ln.Accept(); err == nil {
				t.Errorf("HTTP has got %v", c)
			}
		}()
		knock := func(sent int) (all int, took time.Duration) {
			near, far := net.Pipe()
			s := &stalling{Conn: far, left: sent}
			begun := time.Now()
			strangers <- near
			c := tls.Client(s, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{carrier.Protocol}})
			if c.Handshake() == nil {
				_, _ = c.Write([]byte("\x00\x10a token of mine."))
				_, _ = io.ReadAll(c)
			}
			took = time.Since(begun)
			far.Close()
			return s.sent, took
		}
		all, took := knock(1 << 20)
		synctest.Wait()
		if took != 0 || ended.Load() != 1 {
			t.Errorf("a wrong token was answered after %v", took)
		}
		for sent := range all {
			if _, took := knock(sent); took != preAuthTimeout {
				t.Errorf("a stranger who stalled after %d bytes of %d was gone after %v", sent, all, took)
			}
		}
		close(strangers)
		<-serving
		ln.Close()
	})
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTheGuardsDeadlineHoldsUnderACork(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	guard := entrypoint.NewGuard(ln, entrypoint.GuardConfig{
		Log: discard, Deadline: 50 * time.Millisecond, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	defer guard.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	c, err := cork.Listener{Listener: guard}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Hour))
	begun := time.Now()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) > 5*time.Second {
		t.Fatalf("the read ended with %v after %v", err, time.Since(begun))
	}
	entrypoint.Admit(tls.Server(c, &tls.Config{}))
	_, _ = io.WriteString(far, "x")
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("once admitted, a read gave %d, %v", n, err)
	}
}
