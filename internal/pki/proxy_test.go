package pki

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// serveProxy makes an HTTP proxy for those who know its password, and counts the tunnels that it made.
func serveProxy(t *testing.T) (via *url.URL, tunnels *atomic.Int32) {
	t.Helper()
	tunnels = new(atomic.Int32)
	var open sync.WaitGroup
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != "Basic bWU6c2VjcmV0" {
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, "no way", http.StatusBadGateway)
			return
		}
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		tunnels.Add(1)
		_, _ = io.WriteString(down, "HTTP/1.1 200 Connection established\r\n\r\n")
		open.Go(func() {
			_, _ = io.Copy(up, down)
			up.Close()
		})
		_, _ = io.Copy(down, up)
		down.Close()
	}))
	t.Cleanup(func() {
		s.Close()
		open.Wait()
	})
	via, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	via.User = url.UserPassword("me", "secret")
	return via, tunnels
}

func TestFetchCAThroughAProxy(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	addr := serveAuthority(t, a)
	via, tunnels := serveProxy(t)
	fetch := func(via *url.URL, host string) error {
		_, err := FetchCA(t.Context(), Fetch{Host: host, Token: testToken, TokenID: testID, Proxy: http.ProxyURL(via)})
		return err
	}
	if err := fetch(via, addr); err != nil {
		t.Error(err)
	}
	if n := tunnels.Load(); n != 1 {
		t.Errorf("%d connections went through the proxy, want 1", n)
	}
	if err := fetch(nil, addr); err != nil || tunnels.Load() != 1 {
		t.Errorf("without a proxy: %v, %d through it", err, tunnels.Load())
	}

	stranger, other, ftp := *via, *via, *via
	stranger.User = nil
	other.User = url.UserPassword("me", "canary")
	ftp.Scheme = "ftp"
	for _, tt := range []struct {
		name string
		via  *url.URL
		host string
		want []string
	}{
		{"a proxy that asks for a password", &stranger, addr, []string{"wants a name and a password", "407"}},
		{"a proxy that knows another password", &other, addr, []string{"does not take the name and password", "407"}},
		{"a proxy that does not reach the server", via, closedPort, []string{"through the proxy at " + via.Host, "502"}},
		{"a proxy that is not there", &url.URL{Scheme: "http", Host: closedPort}, addr, []string{"through the proxy at", "connection refused"}},
		{"a proxy of another kind", &ftp, addr, []string{"through the proxy at", "ftp"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Explain(fetch(tt.via, tt.host), tt.host)
			wantWords(t, err, tt.want...)
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "canary") {
				t.Errorf("the password is told: %v", err)
			}
		})
	}
}
