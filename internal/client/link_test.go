package client

import (
	stdtls "crypto/tls"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/auth"
	"culvert/internal/pki"
	carrier "culvert/internal/tunnel/tls"
	"culvert/internal/tunnel/ws"
)

const linkToken = "a token of the tests"

// A client that reaches its server through a proxy alone must get the server's CA that way, too.
func TestCAIsFetchedThroughTheProxy(t *testing.T) {
	asked := ""
	l := newLink(Config{
		Token: auth.NewSecret(linkToken),
		Trust: pki.Trust{Auto: true},
		Proxy: func(r *http.Request) (*url.URL, error) {
			asked = r.URL.Host
			return nil, errors.New("none today")
		},
	}, &url.URL{Scheme: "wss", Host: "127.0.0.1:1", Path: "/connect"})
	if _, err := l.connect(t.Context()); asked != "127.0.0.1:1" || err == nil || !strings.Contains(err.Error(), "PROXY") {
		t.Errorf("the proxy was asked for %q, and the connection gave %v", asked, err)
	}
}

// ends is a control port that speaks both carriers and says the same to each client.
type ends struct {
	host, ca string
	taken    atomic.Int64
}

func serveEnds(t *testing.T, httpStatus int, status carrier.Status) *ends {
	t.Helper()
	e := &ends{}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if httpStatus != http.StatusSwitchingProtocols {
			http.Error(w, "in its own words", httpStatus)
			return
		}
		if c, err := ws.Upgrade(w, r); err == nil {
			e.taken.Add(1)
			c.Close()
		}
	}))
	web.TLS = &stdtls.Config{NextProtos: []string{"http/1.1", carrier.Protocol}}
	web.Config.TLSNextProto = map[string]func(*http.Server, *stdtls.Conn, http.Handler){
		carrier.Protocol: func(_ *http.Server, c *stdtls.Conn, _ http.Handler) {
			defer c.Close()
			token, err := carrier.ReadToken(c)
			if err != nil || token != linkToken {
				t.Errorf("the token is %q, %v", token, err)
			}
			if carrier.Answer(c, status, "in its own words") == nil {
				e.taken.Add(1)
			}
		},
	}
	web.StartTLS()
	t.Cleanup(web.Close)
	e.host = web.Listener.Addr().String()
	e.ca = filepath.Join(t.TempDir(), "ca.crt")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(e.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *ends) link(scheme string) *link {
	u := &url.URL{Scheme: scheme, Host: e.host}
	if scheme == "wss" {
		u.Path = "/connect"
	}
	return newLink(Config{Token: auth.NewSecret(linkToken), Trust: pki.Trust{CAFile: e.ca}}, u)
}

func TestRefusalsAreToldAlikeByEachCarrier(t *testing.T) {
	for _, tt := range []struct {
		name   string
		http   int
		status carrier.Status
		want   string
	}{
		{"wrong token", http.StatusUnauthorized, carrier.Refused, "refused the token: server answered"},
		{"going down", http.StatusServiceUnavailable, carrier.GoingDown, "server answered"},
	} {
		e := serveEnds(t, tt.http, tt.status)
		for _, scheme := range []string{"wss", "tls"} {
			t.Run(tt.name+" over "+scheme, func(t *testing.T) {
				_, err := e.link(scheme).connect(t.Context())
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "in its own words") {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

func TestServerThatDoesNotSpeakBareTLS(t *testing.T) {
	e := &ends{}
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	e.host, e.ca = web.Listener.Addr().String(), filepath.Join(t.TempDir(), "ca.crt")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(e.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.link("tls").connect(t.Context()); err == nil || !strings.Contains(err.Error(), "use wss://") {
		t.Errorf("got %v", err)
	}
}

func TestLinksAreMadeBesideEachOther(t *testing.T) {
	e := serveEnds(t, http.StatusSwitchingProtocols, carrier.OK)
	for _, scheme := range []string{"wss", "tls"} {
		l, before := e.link(scheme), e.taken.Load()
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				var c net.Conn
				c, err := l.connect(t.Context())
				if err != nil {
					t.Errorf("%s: %v", scheme, err)
					return
				}
				c.Close()
			})
		}
		wait.Wait()
		tick := time.NewTicker(time.Millisecond) // the server counts after its answer
		for i := 0; i < 5000 && e.taken.Load()-before < 8; i++ {
			<-tick.C
		}
		tick.Stop()
		if n := e.taken.Load() - before; n != 8 {
			t.Errorf("%s: the server took %d connections, want 8", scheme, n)
		}
	}
}

func TestAnotherAuthorityIsAskedForAfterAFailure(t *testing.T) {
	e := serveEnds(t, http.StatusSwitchingProtocols, carrier.OK)
	good, err := os.ReadFile(e.ca)
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"wss", "tls"} {
		if err := os.WriteFile(e.ca, foreign(t), 0o600); err != nil {
			t.Fatal(err)
		}
		l := e.link(scheme)
		if _, err := l.connect(t.Context()); err == nil || !strings.Contains(err.Error(), "does not come from a CA that is trusted") {
			t.Errorf("%s: got %v", scheme, err)
		}
		if err := os.WriteFile(e.ca, good, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := l.connect(t.Context())
		if err != nil {
			t.Fatalf("%s: with the right file: %v", scheme, err)
		}
		c.Close()
	}
}

// foreign is an authority of someone else.
func foreign(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	a, err := pki.OpenAuthority(pki.Config{Dir: dir, SANs: []string{"example.com"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.CA().Raw})
}
