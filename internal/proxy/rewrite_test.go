package proxy

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzIsForwarding(f *testing.F) {
	for _, s := range []string{"", "Forwarded", "X-Forwarded-For", "x_forwarded_for", "X-Real-Ip", "X-Request-Id", "X-Forward", "Host", "X-Forwarded-\xff"} {
		f.Add(s)
	}
	lower := func(s string) string {
		return strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		}, strings.ReplaceAll(s, "_", "-"))
	}
	f.Fuzz(func(t *testing.T, name string) {
		n := lower(name)
		want := n == "forwarded" || n == "x-real-ip" || n == "x-request-id" || strings.HasPrefix(n, "x-forwarded")
		if got := isForwarding(name); got != want {
			t.Errorf("isForwarding(%q) is %v, want %v", name, got, want)
		}
	})
}

func FuzzRequestID(f *testing.F) {
	for _, s := range []string{"", "abc", "a b", "ü", strings.Repeat("x", 129), "8f14e45f-ceea-467f-9575-3c1f0b8d5e6a", "a\n"} {
		f.Add(s)
	}
	fit := regexp.MustCompile(`^[A-Za-z0-9_.:=+/-]{1,128}$`)
	f.Fuzz(func(t *testing.T, id string) {
		got := requestID(http.Header{"X-Request-Id": {id}})
		if !fit.MatchString(got) {
			t.Errorf("id %q became %q", id, got)
		}
		if fit.MatchString(id) && got != id {
			t.Errorf("id %q was not kept but became %q", id, got)
		}
	})
}

func TestPrefersJSON(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "application/json": true, "APPLICATION/JSON; q=1": true, "application/problem+json": true,
		"text/html, application/json": false, "image/png, application/json, */*": true, ",;,": false,
	} {
		if got := prefersJSON(http.Header{"Accept": {accept}}); got != want {
			t.Errorf("Accept: %q prefers JSON: %v, want %v", accept, got, want)
		}
	}
}

func TestWhereARequestComesFrom(t *testing.T) {
	type from struct{ For, Proto string }
	got := make(chan http.Header, 1)
	s := newSite(t, nil, member(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	for _, tt := range []struct {
		name, remote string
		tls          *tls.ConnectionState
		want         from
	}{
		{"IPv4", "192.0.2.1:1234", nil, from{"192.0.2.1", "http"}},
		{"IPv4 as a dual-stack socket shows it", "[::ffff:192.0.2.1]:1234", nil, from{"192.0.2.1", "http"}},
		{"IPv6", "[2001:db8::1]:1234", nil, from{"2001:db8::1", "http"}},
		{"IPv6 with a zone", "[fe80::1%eth0]:1234", nil, from{"fe80::1", "http"}},
		{"over TLS", "192.0.2.1:1234", &tls.ConnectionState{}, from{"192.0.2.1", "https"}},
		{"no network address", "@", nil, from{"", "http"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequest(http.MethodGet, "http://app.example.com/", nil)
			req.RemoteAddr, req.TLS = tt.remote, tt.tls
			s.ServeHTTP(httptest.NewRecorder(), req)
			h := <-got
			if diff := cmp.Diff(tt.want, from{h.Get("X-Forwarded-For"), h.Get("X-Forwarded-Proto")}); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}
