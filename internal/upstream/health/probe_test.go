package health

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/proxyproto"
)

// ask is one check of a service.
func ask(t *testing.T, cfg Config) error {
	t.Helper()
	if cfg.Check.Timeout == 0 {
		cfg.Check.Timeout, cfg.Check.Interval = 5*time.Second, 5*time.Second
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), c.check.Timeout)
	defer cancel()
	leave, err := c.probe(ctx)
	leave()
	return err
}

func tcpService(t *testing.T, network, addr string, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			handle(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-ended
	})
	return ln.Addr().String()
}

// closedPort is one that nobody listens on, and that the kernel gives to nobody.
const closedPort = "127.0.0.1:1"

func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		for i := range len(text) { // in the smallest pieces there are
			_, _ = c.Write([]byte{text[i]})
		}
		_, _ = io.Copy(io.Discard, c)
	}
}

func answers(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1024))
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, c)
	}
}

func TestChecksOfStreams(t *testing.T) {
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	short := func(c Check) Check {
		c.Timeout, c.Interval = 50*time.Millisecond, time.Second
		return c
	}
	tests := []struct {
		name    string
		check   Check
		service func(net.Conn)
		want    string // in the error; "" for none
	}{
		{"connect", Check{Kind: TCP}, silent, ""},
		{"banner", Check{Kind: Expect, Expect: "SSH-2.0"}, says("SSH-2.0-OpenSSH_9.2\r\n"), ""},
		{"any banner", Check{Kind: Expect, Send: "\r\n"}, says("x"), ""},
		{"wrong banner", short(Check{Kind: Expect, Expect: "SSH-2.0"}), says("550 no\r\n"), `want "SSH-2.0" in "550 no\r\n"`},
		{"no banner", short(Check{Kind: Expect, Expect: "SSH-2.0"}), silent, "no answer within 50ms"},
		{"closed", Check{Kind: Expect, Expect: "SSH-2.0"}, func(net.Conn) {}, "closed without an answer"},
		{"send and expect", Check{Kind: Expect, Send: "PING\r\n", Expect: "+PONG"}, answers("+PONG\r\n"), ""},
		{"too much", Check{Kind: Expect, Expect: "y"}, answersAtOnce(strings.Repeat("x", 2*maxAnswer)), "not the right one"},
		{"http", Check{Kind: HTTP}, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), ""},
		{"http of old", Check{Kind: HTTP}, answers("HTTP/1.0 302 Found\r\n\r\n"), ""},
		{"http after hints", Check{Kind: HTTP}, answers("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), ""},
		{"http error", Check{Kind: HTTP, Path: "/healthz"}, answers("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "GET /healthz: 503 Service Unavailable"},
		{"http error that is right", Check{Kind: HTTP, Status: []StatusRange{{401, 401}}}, answers("HTTP/1.1 401 Unauthorized\r\n\r\n"), ""},
		{"http not in the range", Check{Kind: HTTP, Status: []StatusRange{{200, 200}, {204, 204}}}, answers("HTTP/1.1 301 Moved\r\n\r\n"), "301 Moved"},
		{"http by HEAD", Check{Kind: HTTP, Method: "HEAD"}, answers("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), ""},
		{"http error by OPTIONS", Check{Kind: HTTP, Method: "OPTIONS", Path: "/x"}, answers("HTTP/1.1 405 No\r\n\r\n"), "OPTIONS /x: 405 No"},
		{"http body", Check{Kind: HTTP, Expect: "ready"}, answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n"), ""},
		{"http body that is another", Check{Kind: HTTP, Expect: "ready"}, answers("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nstarting"), `want "ready" in "starting"`},
		{"http body that is too long", Check{Kind: HTTP, Expect: "y"}, answers("HTTP/1.1 200 OK\r\nContent-Length: 131072\r\n\r\n" + strings.Repeat("x", 2*maxAnswer)), "not the right one"},
		{"http body that goes on", Check{Kind: HTTP, Expect: "ready"}, answers("HTTP/1.1 200 OK\r\n\r\nready"), ""},
		{"http without a body", Check{Kind: HTTP, Expect: "ready"}, answers("HTTP/1.1 204 No\r\n\r\n"), "GET /: 204 No, body: closed without an answer"},
		{"http body of an error", Check{Kind: HTTP, Expect: "ready"}, answers("HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nready"), "GET /: 500 Oh"},
		{"http body that hangs", short(Check{Kind: HTTP, Expect: "ready"}), answers("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nrea"), `want "ready" in "rea"`},
		{"not http", Check{Kind: HTTP}, answers("SSH-2.0-OpenSSH\r\n"), "malformed"},
		{"http cut", Check{Kind: HTTP}, func(c net.Conn) { _, _ = c.Read(make([]byte, 1024)); _, _ = io.WriteString(c, "HTTP/1.1 200") }, "ended before a whole head"},
		{"http hangs", short(Check{Kind: HTTP}), silent, "no answer within 50ms"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for network, addr := range map[string]string{
				"tcp": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": filepath.Join(t.TempDir(), "s"),
			} {
				addr := tcpService(t, network, addr, test.service)
				err := ask(t, Config{Check: test.check, Network: strings.TrimSuffix(network, "6"), Address: addr})
				if got := text(err); test.want == "" && err != nil || !strings.Contains(got, test.want) {
					t.Errorf("%s: error %q, want %q", network, got, test.want)
				}
			}
		})
	}
}

func answersAtOnce(text string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, text) }
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestARefusedConnectionFailsAtOnce(t *testing.T) {
	for _, kind := range []Kind{TCP, HTTP, Expect} {
		err := ask(t, Config{Check: Check{Kind: kind}, Network: "tcp", Address: closedPort})
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%s: error %v", kind, err)
		}
	}
}

// What a service sees of a check is a connection that ends in order, whether it speaks first, last or never.
func TestServicesSeeNoError(t *testing.T) {
	for name, banner := range map[string]string{"silent": "", "speaks first": "220 mail.example.com ESMTP\r\n"} {
		for _, kind := range []Kind{TCP, HTTP, Expect} {
			ended := make(chan error, 1)
			addr := tcpService(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				_, _ = io.WriteString(c, banner)
				_, err := io.Copy(io.Discard, c)
				if _, more := io.WriteString(c, "bye\r\n"); err == nil {
					err = more
				}
				ended <- err
			})
			_ = ask(t, Config{Check: Check{Kind: kind, Timeout: 100 * time.Millisecond}, Network: "tcp", Address: addr})
			if err := <-ended; err != nil {
				t.Errorf("%s, %s: the service's connection ended with %v", name, kind, err)
			}
		}
	}
}

func TestHTTPRequest(t *testing.T) {
	got := make(chan *http.Request, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r }))
	srv.StartTLS()
	defer srv.Close()
	pool := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	err := ask(t, Config{
		Check:   Check{Kind: HTTP, Path: "/healthz?deep=1", Host: "app.example.com"},
		Network: "tcp", Address: srv.Listener.Addr().String(), TLS: &tls.Config{RootCAs: pool, ServerName: "example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := <-got
	if r.Method != "GET" || r.RequestURI != "/healthz?deep=1" || r.Host != "app.example.com" || r.Proto != "HTTP/1.1" || r.TLS == nil {
		t.Errorf("got %s %s of %s, %s, TLS %v", r.Method, r.RequestURI, r.Host, r.Proto, r.TLS != nil)
	}
	trusting := &tls.Config{RootCAs: pool, ServerName: "example.com"}
	if err := ask(t, Config{Check: Check{Kind: TCP}, Network: "tcp", Address: srv.Listener.Addr().String(), TLS: trusting}); err != nil {
		t.Errorf("a handshake alone: %v", err)
	}
	for _, kind := range []Kind{TCP, HTTP, Expect} {
		err = ask(t, Config{
			Check: Check{Kind: kind}, Network: "tcp", Address: srv.Listener.Addr().String(), TLS: &tls.Config{ServerName: "example.com"},
		})
		if err == nil || !strings.Contains(err.Error(), "tls handshake") || !strings.HasSuffix(err.Error(), "; insecure: true lets the check take any") {
			t.Errorf("%s, a certificate that nobody trusts: error %v", kind, err)
		}
	}
}

func TestAnotherPort(t *testing.T) {
	addr := tcpService(t, "tcp", "127.0.0.1:0", says("x"))
	_, p, _ := net.SplitHostPort(addr)
	port, err := parsePort(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "udp"} { // a UDP service may have a TCP port that tells of it
		if err := ask(t, Config{Check: Check{Kind: TCP, Port: port}, Network: network, Address: closedPort}); err != nil {
			t.Errorf("%s: %v", network, err)
		}
	}
}

func TestPROXYHeaders(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, version := range []proxyproto.Version{proxyproto.V1, proxyproto.V2} {
			for _, kind := range []Kind{TCP, HTTP, Expect} {
				first := make(chan []byte, 1)
				var from, to net.Addr
				addr := tcpService(t, "tcp", listen, func(c net.Conn) {
					from, to = c.RemoteAddr(), c.LocalAddr()
					p := make([]byte, 1024)
					n, _ := c.Read(p) // the header comes in one piece: many readers want that
					first <- p[:n]
				})
				_ = ask(t, Config{Check: Check{Kind: kind, Proxy: version}, Network: "tcp", Address: addr})
				got := <-first
				h, _, _, err := proxyproto.Parse(got)
				switch {
				case err != nil || h.Version != version:
					t.Errorf("%s: first bytes %q: version %d, error %v", kind, got, h.Version, err)
				case version == proxyproto.V2 && (!h.Local || len(h.TLVs) > 0 || !strings.HasPrefix(string(got[12:]), "\x20\x00\x00\x00")):
					t.Errorf("%s: v2 %q is not LOCAL without anything", kind, got)
				case version == proxyproto.V1 && (h.Source.String() != from.String() || h.Destination.String() != to.String()):
					t.Errorf("%s: v1 says %s to %s, want %s to %s", kind, h.Source, h.Destination, from, to)
				}
			}
		}
	}
}

func udpService(t *testing.T, reply func(p []byte) [][]byte) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(p)
			if err != nil {
				return
			}
			for _, out := range reply(p[:n]) {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		<-ended
	})
	return pc.LocalAddr().String()
}

func TestChecksOfUDP(t *testing.T) {
	silent := func([]byte) [][]byte { return nil }
	echo := func(p []byte) [][]byte { return [][]byte{[]byte("noise"), p} }
	quick := func(send, expect string) Check {
		return Check{Kind: UDP, Send: send, Expect: expect, Timeout: 100 * time.Millisecond}
	}
	for _, test := range []struct {
		name  string
		check Check
		reply func([]byte) [][]byte
		want  string
	}{
		{"answers", Check{Kind: UDP, Send: "ping", Expect: "ping"}, echo, ""},
		{"an empty datagram", quick("", ""), silent, ""},
		{"silent, and nothing expected", quick("ping", ""), silent, ""},
		{"silent", quick("ping", "pong"), silent, "no answer within 100ms"},
		{"wrong answer", quick("ping", "pong"), echo, `want "pong" in "ping"`},
	} {
		err := ask(t, Config{Check: test.check, Network: "udp", Address: udpService(t, test.reply)})
		if got := text(err); test.want == "" && err != nil || !strings.Contains(got, test.want) {
			t.Errorf("%s: error %q, want %q", test.name, got, test.want)
		}
	}
}

func TestAUDPPortThatNobodyHasIsCertain(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := pc.LocalAddr().String()
	_ = pc.Close()
	for _, expect := range []string{"", "pong"} {
		err := ask(t, Config{Check: Check{Kind: UDP, Send: "ping", Expect: expect}, Network: "udp", Address: addr})
		var sure *certain // no check that has waited in vain is
		if !errors.As(err, &sure) {
			t.Errorf("expecting %q: error %v", expect, err)
		}
	}
}

func TestAUDPCheckHasAPROXYHeaderOfItsOwn(t *testing.T) {
	addr := udpService(t, func(p []byte) [][]byte {
		h, n, _, err := proxyproto.Parse(p)
		if err != nil || !h.Local {
			return nil
		}
		return [][]byte{p[n:]}
	})
	c := Check{Kind: UDP, Send: "ping", Expect: "ping", Proxy: proxyproto.V2}
	if err := ask(t, Config{Check: c, Network: "udp", Address: addr}); err != nil {
		t.Error(err)
	}
}

func TestACheckEndsWithItsContext(t *testing.T) {
	accepted := make(chan struct{}, 1)
	addr := tcpService(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		accepted <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
	})
	c, err := New(Config{Check: Check{Kind: Expect, Expect: "x", Timeout: time.Hour, Interval: time.Hour}, Network: "tcp", Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		c.Run(ctx)
	}()
	<-accepted
	cancel()
	select {
	case <-ran:
	case <-time.After(5 * time.Second):
		t.Fatal("still running after 5 s")
	}
}
