package entrypoint

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/proxyproto"
)

// behindBalancer is an HTTP entrypoint that answers with the visitor's address and its own.
func behindBalancer(t *testing.T, r *Reception, allow ...netip.Prefix) (net.Addr, *reasons) {
	t.Helper()
	var counted reasons
	h, err := ListenHTTP(HTTPConfig{Addr: "127.0.0.1:0", Allow: allow, Reception: r, Log: quiet(), OnRefused: counted.add},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s to %s: %s", r.RemoteAddr, r.Context().Value(http.LocalAddrContextKey), body)
		}))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(t.Context()) }()
	t.Cleanup(func() {
		h.Abort()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h.Addr(), &counted
}

// askRaw sends the pieces and gives the body of the answer, or the error with which the connection ended.
func askRaw(t *testing.T, addr net.Addr, pieces ...string) (string, error) {
	t.Helper()
	c := dial(t, addr)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	for _, p := range pieces {
		if _, err := io.WriteString(c, p); err != nil {
			return "", err
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, body), err
}

const (
	get  = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
	post = "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"
)

func TestHTTPComesFromWhereTheHeaderSays(t *testing.T) {
	addr, counted := behindBalancer(t, &Reception{Proxy: trusting("127.0.0.0/8")})
	v2 := header2(proxyproto.Header{Transport: proxyproto.TCP, Source: visitor, Destination: wanted})
	six := "PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n"
	tests := []struct {
		name   string
		pieces []string
		want   string
	}{
		{"version 1", []string{line + get}, "200 198.51.100.7:51000 to 192.0.2.99:8443: "},
		{"version 1, IPv6", []string{six + get}, "200 [2001:db8::7]:51000 to [2001:db8::1]:443: "},
		{"version 2", []string{v2 + post}, "200 198.51.100.7:51000 to 192.0.2.99:8443: body"},
		{"in pieces", []string{v2[:5], v2[5:], get[:20], get[20:]}, "200 198.51.100.7:51000 to 192.0.2.99:8443: "},
		{"a large body", []string{line + strings.Replace(post, "Content-Length: 4", "Content-Length: 5004", 1) + strings.Repeat("x", 5000)}, "200 198.51.100.7:51000 to 192.0.2.99:8443: body" + strings.Repeat("x", 5000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := askRaw(t, addr, tt.pieces...); err != nil || got != tt.want {
				t.Errorf("got %.200q, %v; want %.200q", got, err, tt.want)
			}
		})
	}
	got, err := askRaw(t, addr, header2(proxyproto.Header{Local: true})+get)
	if err != nil || !strings.HasPrefix(got, "200 127.0.0.1:") || !strings.HasSuffix(got, "to "+addr.String()+": ") {
		t.Errorf("LOCAL: got %q, %v", got, err)
	}
	if len(counted.list()) > 0 {
		t.Errorf("counted %q", counted.list())
	}
	if _, err := askRaw(t, addr, get); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without a header: %v, want a reset", err)
	}
	if got := counted.list(); !slices.Equal(got, []string{RefusedNoHeader}) {
		t.Errorf("counted %q", got)
	}
}

// T10, C16, over HTTP: a stranger's header is refused before anything is answered, whole, in pieces or with a request.
func TestHTTPOfAStrangerIsServedAndItsHeaderRefused(t *testing.T) {
	addr, counted := behindBalancer(t, &Reception{Proxy: trusting("10.0.0.0/8")})
	for _, request := range []string{get, post, "PROPFIND" + get[3:]} {
		got, err := askRaw(t, addr, request)
		if err != nil || !strings.HasPrefix(got, "200 127.0.0.1:") {
			t.Errorf("%q: got %q, %v", request, got, err)
		}
	}
	if got, err := askRaw(t, addr, "P", "UT / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"); err != nil || !strings.HasPrefix(got, "200 127.0.0.1:") {
		t.Errorf("a request in pieces: got %q, %v", got, err)
	}
	if len(counted.list()) > 0 {
		t.Errorf("counted %q", counted.list())
	}
	v2 := header2(proxyproto.Header{Transport: proxyproto.TCP, Source: visitor, Destination: wanted})
	for _, pieces := range [][]string{{line + get}, {"PROX", line[4:] + get}, {v2 + get}, {v2[:11], v2[11:]}} {
		if got, err := askRaw(t, addr, pieces...); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%q: got %q, %v; want a reset", pieces, got, err)
		}
	}
	if got := counted.list(); !slices.Equal(got, slices.Repeat([]string{RefusedSpoof}, 4)) {
		t.Errorf("counted %q", got)
	}
}

func TestHTTPAllowsVisitorsNotBalancers(t *testing.T) {
	addr, counted := behindBalancer(t, &Reception{Proxy: trusting("127.0.0.0/8")}, netip.MustParsePrefix("198.51.100.0/24"))
	if got, err := askRaw(t, addr, line+get); err != nil || !strings.HasPrefix(got, "200 198.51.100.7:51000") {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := askRaw(t, addr, "PROXY TCP4 203.0.113.1 192.0.2.99 51000 8443\r\n"+get); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("another visitor: %v", err)
	}
	if got := counted.list(); !slices.Equal(got, []string{RefusedSource}) {
		t.Errorf("counted %q", got)
	}
}

// TestHealthTakesWhatBalancersSend is for the port of --health-addr: the check of AWS begins with LOCAL and 84 bytes of
// fields, that of DigitalOcean with version 1, and others with nothing.
func TestHealthTakesWhatBalancersSend(t *testing.T) {
	trusted := trusting("127.0.0.0/8").Trusted
	addr, counted := behindBalancer(t, &Reception{Proxy: &ProxyPolicy{Trusted: trusted, Optional: true}})
	aws, err := hex.DecodeString("0d0a0d0a000d0a515549540a20110054030004d0b1a8f3" + "04004a" + strings.Repeat("00", 74))
	if err != nil || len(aws) != 100 {
		t.Fatal(len(aws), err)
	}
	for name, before := range map[string]string{
		"AWS": string(aws), "DigitalOcean": line, "UNKNOWN": "PROXY UNKNOWN\r\n", "none": "",
		"HAProxy": header2(proxyproto.Header{Local: true}),
	} {
		for _, request := range []string{get, "GET / HTTP/1.0\r\n\r\n"} {
			if got, err := askRaw(t, addr, before+request); err != nil || !strings.HasPrefix(got, "200 ") {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		}
	}
	c := dial(t, addr) // a probe without a byte
	_ = c.Close()
	if got := counted.list(); len(got) > 0 {
		t.Errorf("counted %q", got)
	}
}
