//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"culvert/internal/proxyproto"
)

// The seeds' design, for TCP: a balancer in front tells the server who visitors are, and the server the services behind
// the client, in whatever version either wants.
func TestPROXYHeaderGoesFromTheBalancerToTheService(t *testing.T) {
	need(t, "haproxy")
	for _, tt := range []struct {
		in, out, client string
		want            proxyproto.Version
	}{
		{"send-proxy", "v2", "server", proxyproto.V2},
		{"send-proxy-v2", "v1", "server", proxyproto.V1},
		{"send-proxy-v2", "v1", "v2", proxyproto.V2},
		{"send-proxy-v2", "", "v1", proxyproto.V1},
	} {
		t.Run(tt.in+" "+tt.out+" "+tt.client, func(t *testing.T) {
			s := startServer(t, "--lb-proxy-protocol", "v1", "--lb-trusted", "127.0.0.1", "--proxy-protocol", tt.out)
			tunnel, front := freeAddr(t), freeAddr(t)
			service, connections := proxyListener(t)
			s.client(t, "--proxy-protocol", tt.client, "--upstream", port(t, tunnel)+"="+service)
			s.members(t, 1, patience)
			startHAProxy(t, `
listen tcp
  mode tcp
  bind `+front+`
  server a `+tunnel+` `+tt.in+`
`)
			accepts(t, "tcp", front)
			from, to := say(t, front, "hello")
			late := time.After(patience)
			for {
				select {
				case got := <-connections:
					h := got.header
					if h.Source != from { // the connections of accepts come with headers of their own
						continue
					}
					if got.err != nil || got.rest != "hello" || h.Version != tt.want || h.Destination != to {
						t.Errorf("got %+v, want version %s, %s to %s", got, tt.want, from, to)
					}
				case <-late:
					t.Errorf("no connection came with the header of %s", from)
				}
				return
			}
		})
	}
}

// TestAllowedAreVisitorsNotTheBalancer is about --data-allow-ips behind a balancer, which is not on the list itself.
func TestAllowedAreVisitorsNotTheBalancer(t *testing.T) {
	need(t, "haproxy")
	s := startServer(t, "--lb-proxy-protocol", "auto", "--lb-trusted", "127.0.0.1", "--data-allow-ips", "127.0.0.77")
	tunnel, ports, web := freeAddr(t), freeAddr(t), freeAddr(t)
	o := newOrigin(t, "a")
	s.client(t, "--upstream", o.URL, "--upstream", port(t, tunnel)+"="+o.addr())
	s.members(t, 1, patience)
	startHAProxy(t, `
defaults
  mode tcp
  timeout connect 2s
  timeout client 30s
  timeout server 30s
listen ports
  bind `+ports+`
  server a `+tunnel+` send-proxy-v2
listen web
  bind `+web+`
  server a `+s.data+` send-proxy-v2
`)
	accepts(t, "tcp", ports)
	accepts(t, "tcp", web)
	for _, front := range []string{ports, web} {
		if got, err := requestFrom("127.0.0.77", front, askHeaders); err != nil || !strings.HasPrefix(got, "200 ") {
			t.Errorf("a visitor on the list: %q, %v", got, err)
		}
		if got, err := requestFrom("127.0.0.9", front, askHeaders); err == nil {
			t.Errorf("another visitor: %q", got)
		}
	}
	for _, direct := range []string{tunnel, s.data} {
		if got, err := requestFrom("127.0.0.9", direct, askHeaders); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("another visitor, past the balancer: %q, %v", got, err)
		}
	}
}

// T10, C16, over TCP: nothing of a stranger's header reaches the service, whole or in pieces, before or after the service
// was dialled and has spoken.
func TestForgedPROXYHeaderReachesNoService(t *testing.T) {
	s := startServer(t, "--lb-proxy-protocol", "auto", "--lb-trusted", "127.0.0.1")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan string, 100)
	var open atomic.Int64
	go func() { // a service that speaks first
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				defer open.Add(-1)
				defer c.Close()
				_, _ = io.WriteString(c, "hi")
				p, _ := io.ReadAll(c)
				got <- string(p)
			}()
		}
	}()
	tunnel := freeAddr(t)
	s.client(t, "--upstream", port(t, tunnel)+"="+ln.Addr().String())
	s.members(t, 1, patience)
	dial := func() net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}
		c, err := d.Dial("tcp", tunnel)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		return c
	}
	const v1, v2 = "PROXY TCP4 198.51.100.7 192.0.2.99 51000 8443\r\n", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	refused := 0
	for name, tt := range map[string]struct {
		pieces []string
		greet  bool // wait for the service's greeting first
		leaks  int  // bytes that the service may see: of the beginning of a signature, let go because nothing came
	}{
		"at once":                       {[]string{v1}, false, 0},
		"version 2, at once":            {[]string{v2}, false, 0},
		"in two pieces":                 {[]string{v1[:3], v1[3:]}, false, 3},
		"after the greeting":            {[]string{v1}, true, 0},
		"version 2, after the greeting": {[]string{v2}, true, 0},
		"in two pieces, after it":       {[]string{v2[:11], v2[11:]}, true, 11},
		"all but a byte, then the byte": {[]string{v1[:5], v1[5:6]}, true, 5},
	} {
		c := dial()
		if tt.greet {
			if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
				t.Fatalf("%s: no greeting: %v", name, err)
			}
		}
		for i, p := range tt.pieces {
			if i > 0 {
				lasts(t, 300*time.Millisecond) // longer than a piece is held
			}
			if _, err := io.WriteString(c, p); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: ended with %v, want a reset", name, err)
		}
		_ = c.Close()
		refused++
		eventually(t, patience, "the service has heard the end", func(context.Context) error {
			if n := open.Load(); n > 0 {
				return fmt.Errorf("%d connections are open", n)
			}
			return nil
		})
		for len(got) > 0 { // none, if it was not dialled
			if p := <-got; len(p) > tt.leaks || !strings.HasPrefix(v1, p) && !strings.HasPrefix(v2, p) {
				t.Errorf("%s: the service got %q", name, p)
			}
		}
	}
	until(t, "the refusals are counted", func() bool {
		return sum(s.metrics(t), "tcp_dataplane_connections_refused_total", `reason="proxy_spoof"`) == float64(refused)
	})
	for _, says := range []string{"PROXIMITY", "\r\n\r\nhello", "P"} { // what only begins like one passes whole
		c := dial()
		if _, err := io.WriteString(c, says); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if p, err := io.ReadAll(c); err != nil || string(p) != "hi" {
			t.Errorf("%q: answered %q, %v", says, p, err)
		}
		_ = c.Close()
		if p := <-got; p != says {
			t.Errorf("%q: the service got %q", says, p)
		}
	}
}
