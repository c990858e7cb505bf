//go:build linux

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/proxyproto"
)

// arrived is a connection that began with a PROXY header.
type arrived struct {
	header proxyproto.Header
	rest   string // what came until the sender ended
	err    error
}

// proxyListener reads connections that begin with a PROXY header by our own parser.
func proxyListener(t *testing.T) (addr string, connections <-chan arrived) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan arrived, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all <- readArrived(c)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String(), all
}

func readArrived(c net.Conn) arrived {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	var p []byte
	for {
		h, n, more, err := proxyproto.Parse(p)
		switch {
		case err != nil:
			return arrived{err: fmt.Errorf("%q: %w", p, err)}
		case !more:
			rest, err := io.ReadAll(c)
			return arrived{h, string(p[n:]) + string(rest), err}
		}
		buf := make([]byte, 4096)
		n, err = c.Read(buf)
		p = append(p, buf[:n]...)
		if n == 0 && err != nil {
			return arrived{err: fmt.Errorf("after %q: %w", p, err)}
		}
	}
}

// say connects, says one thing and ends, and gives the two ends of the connection.
func say(t *testing.T, addr, what string) (from, to netip.AddrPort) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.Copy(io.Discard, c) // until the other end is done with it
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
}

func TestWeReadPROXYHeadersOfHAProxy(t *testing.T) {
	need(t, "haproxy")
	for _, tt := range []struct {
		name, server string
		version      proxyproto.Version
		tlvs         []byte // that must be there
	}{
		{"version 1", "send-proxy", proxyproto.V1, nil},
		{"version 2", "send-proxy-v2", proxyproto.V2, nil},
		{"version 2 with a checksum and an id", "send-proxy-v2 proxy-v2-options crc32c,unique-id", proxyproto.V2, []byte{proxyproto.TypeUniqueID}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, connections := proxyListener(t)
			front := freeAddr(t)
			startHAProxy(t, `
listen tcp
  mode tcp
  unique-id-format %{+X}o\ %ci:%cp
  bind `+front+`
  server a `+addr+` `+tt.server+`
`)
			accepts(t, "tcp", front)
			<-connections // of accepts
			from, to := say(t, front, "hello")
			got := <-connections
			if got.err != nil || got.rest != "hello" {
				t.Fatalf("got %q, %v", got.rest, got.err)
			}
			h := got.header
			if h.Version != tt.version || h.Source != from || h.Destination != to || h.Transport != proxyproto.TCP {
				t.Errorf("got %+v, want %s to %s", h, from, to)
			}
			for _, kind := range tt.tlvs {
				if v, ok := h.TLV(kind); !ok || len(v) == 0 {
					t.Errorf("field %d is missing: %+v", kind, h.TLVs)
				}
			}
		})
	}
}

// TestWeReadPROXYHeadersOfHAProxysChecks has HAProxy check us: LOCAL in version 2, a line with its own address in 1.
func TestWeReadPROXYHeadersOfHAProxysChecks(t *testing.T) {
	need(t, "haproxy")
	for server, local := range map[string]bool{"send-proxy-v2 check check-send-proxy inter 50ms": true, "send-proxy check check-send-proxy inter 50ms": false} {
		addr, connections := proxyListener(t)
		startHAProxy(t, `
listen tcp
  mode tcp
  bind `+freeAddr(t)+`
  server a `+addr+` `+server+`
`)
		got := <-connections
		for got.header.Version == proxyproto.Off && errors.Is(got.err, syscall.ECONNRESET) {
			got = <-connections // HAProxy ends a check by a reset, which may overtake the header
		}
		if got.header.Version == proxyproto.Off || got.header.Local != local || got.rest != "" || !local && !got.header.Source.Addr().IsLoopback() {
			t.Errorf("%s: got %+v", server, got)
		}
	}
}

func TestWeReadPROXYHeadersOfNginx(t *testing.T) {
	const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
	need(t, "nginx", "/usr/lib/nginx/modules/ngx_stream_module.so")
	addr, connections := proxyListener(t)
	front := freeAddr(t)
	nginx(t, "load_module "+module+`;`, `stream { server { listen `+front+`; proxy_pass `+addr+`; proxy_protocol on; proxy_half_close on; } }`)
	accepts(t, "tcp", front)
	<-connections // of accepts
	from, to := say(t, front, "hello")
	if got := <-connections; got.err != nil || got.rest != "hello" || got.header.Version != proxyproto.V1 || got.header.Source != from || got.header.Destination != to {
		t.Errorf("got %+v, want %s to %s", got, from, to)
	}
}

// nginx runs nginx with a configuration of its own.
func nginx(t *testing.T, main, blocks string) {
	t.Helper()
	dir := t.TempDir()
	who := ""
	if os.Geteuid() == 0 {
		who = "user root;"
	}
	config := write(t, dir, "nginx.conf", fmt.Sprintf("%s daemon off; %s pid %s/pid; error_log stderr notice; worker_processes 1; events { worker_connections 100; }\n%s",
		main, who, dir, blocks), 0o600)
	start(t, program{argv: []string{"nginx", "-p", dir, "-e", "stderr", "-c", config}})
}

// TestTheyReadOurPROXYHeaders has HAProxy and nginx say what they make of headers that we write, with a request in the same
// write: in more pieces both refuse them.
func TestTheyReadOurPROXYHeaders(t *testing.T) {
	need(t, "haproxy", "nginx")
	haproxy, web := freeAddr(t), freeAddr(t)
	startHAProxy(t, `
listen http
  mode http
  bind `+haproxy+` accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
`)
	nginx(t, "", `http { access_log off; server { listen `+web+` proxy_protocol; default_type text/plain;
  return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port"; } }`)
	accepts(t, "tcp", haproxy)
	accepts(t, "tcp", web)
	four, other4 := netip.MustParseAddrPort("198.51.100.7:51000"), netip.MustParseAddrPort("192.0.2.99:8443")
	six, other6 := netip.MustParseAddrPort("[2001:db8::7]:51000"), netip.MustParseAddrPort("[2001:db8::99]:8443")
	const (
		want4    = "198.51.100.7 51000 192.0.2.99 8443"
		want6    = "2001:db8::7 51000 2001:db8::99 8443"
		wantFrom = "::ffff:198.51.100.7 51000 2001:db8::99 8443" // IPv4 to IPv6
		wantTo   = "2001:db8::7 51000 ::ffff:192.0.2.99 8443"    // IPv6 to IPv4
	)
	crc := []proxyproto.TLV{{Type: proxyproto.TypeCRC32C}}
	id := []proxyproto.TLV{{Type: proxyproto.TypeAuthority, Value: []byte("a.example")}, {Type: proxyproto.TypeUniqueID, Value: []byte("c1")}, {Type: proxyproto.TypeCRC32C}}
	for _, tt := range []struct {
		name    string
		version proxyproto.Version
		header  proxyproto.Header
		want    string // "" if they are to go by the connection
	}{
		{"v1, IPv4", proxyproto.V1, proxyproto.Header{Source: four, Destination: other4}, want4},
		{"v1, IPv6", proxyproto.V1, proxyproto.Header{Source: six, Destination: other6}, want6},
		{"v1, IPv4 to IPv6", proxyproto.V1, proxyproto.Header{Source: four, Destination: other6}, wantFrom},
		{"v1, IPv6 to IPv4", proxyproto.V1, proxyproto.Header{Source: six, Destination: other4}, wantTo},
		{"v1, unknown", proxyproto.V1, proxyproto.Header{}, ""},
		{"v2, IPv4", proxyproto.V2, proxyproto.Header{Source: four, Destination: other4}, want4},
		{"v2, IPv6", proxyproto.V2, proxyproto.Header{Source: six, Destination: other6}, want6},
		{"v2, IPv4 to IPv6", proxyproto.V2, proxyproto.Header{Source: four, Destination: other6}, wantFrom},
		{"v2, IPv6 to IPv4", proxyproto.V2, proxyproto.Header{Source: six, Destination: other4}, wantTo},
		{"v2, checksum", proxyproto.V2, proxyproto.Header{Source: four, Destination: other4, TLVs: crc}, want4},
		{"v2, authority, id and checksum", proxyproto.V2, proxyproto.Header{Source: four, Destination: other4, TLVs: id}, want4},
		{"v2, unknown", proxyproto.V2, proxyproto.Header{}, ""},
		{"v2, LOCAL", proxyproto.V2, proxyproto.Header{Local: true}, ""},
	} {
		tt.header.Transport = proxyproto.TCP
		p := tt.header.AppendTo(nil, tt.version)
		for name, addr := range map[string]string{"HAProxy": haproxy, "nginx": web} {
			got, err := request(addr, string(p))
			switch {
			case tt.want == "" && name == "nginx":
				got = strings.TrimSpace(got) // it knows no address then
			case tt.want == "":
				if err != nil || !strings.HasPrefix(got, "127.0.0.1 ") {
					t.Errorf("%s, %s: got %q, %v", name, tt.name, got, err)
				}
				continue
			}
			if err != nil || got != tt.want {
				t.Errorf("%s, %s: got %q, %v; want %q", name, tt.name, got, err, tt.want)
			}
		}
	}
}

// request sends a request behind a header, in one write, and gives the body of the answer.
func request(addr, header string) (string, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, header+"GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}
