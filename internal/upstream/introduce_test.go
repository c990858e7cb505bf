package upstream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"culvert/internal/proxyproto"
)

// oneRead is a service that reads once and gives what that gave: HAProxy, nginx and others look for the PROXY header in
// no more than that.
func oneRead(t *testing.T, network, addr string) (string, <-chan string) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			p := make([]byte, 64<<10)
			n, _ := c.Read(p) // nothing, if it fails
			read <- string(p[:n])
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String(), read
}

func TestStaticWritesAPROXYHeader(t *testing.T) {
	const v1 = "PROXY TCP4 198.51.100.7 192.0.2.99 51000 8443\r\n"
	source, destination := netip.MustParseAddrPort("198.51.100.7:51000"), netip.MustParseAddrPort("192.0.2.99:8443")
	header := func(tlvs ...proxyproto.TLV) string {
		h := proxyproto.Header{Transport: proxyproto.TCP, Source: source, Destination: destination, TLVs: tlvs}
		return string(h.AppendTo(nil, proxyproto.V2))
	}
	authority, id := proxyproto.TLV{Type: proxyproto.TypeAuthority, Value: []byte("a.example")}, proxyproto.TLV{Type: proxyproto.TypeUniqueID, Value: []byte("c1")}
	tests := []struct {
		name     string
		own, its proxyproto.Emission
		proxy    *proxyproto.Header
		first    string
		want     string
		sent     bool
	}{
		{name: "none, and the caller sends the first bytes", first: "hello", want: ""},
		{name: "the visit's wish", its: proxyproto.Emission{Version: proxyproto.V1}, want: v1},
		{name: "the member's own setting comes first", own: proxyproto.Emission{Version: proxyproto.V2}, its: proxyproto.Emission{Version: proxyproto.V1}, want: header()},
		{name: "with the first bytes, in one write", its: proxyproto.Emission{Version: proxyproto.V1}, first: "hello", want: v1 + "hello", sent: true},
		{name: "version 2 with the first bytes", own: proxyproto.Emission{Version: proxyproto.V2}, first: "hello", want: header() + "hello", sent: true},
		{name: "version 2 with fields", own: proxyproto.Emission{Version: proxyproto.V2, Authority: true, UniqueID: true}, want: header(authority, id)},
		{
			name: "version 2 with the fields of the balancer in front", own: proxyproto.Emission{Version: proxyproto.V2, Authority: true, UniqueID: true},
			proxy: &proxyproto.Header{TLVs: []proxyproto.TLV{{Type: proxyproto.TypeUniqueID, Value: []byte("theirs")}}},
			want:  header(authority, proxyproto.TLV{Type: proxyproto.TypeUniqueID, Value: []byte("theirs")}),
		},
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
			}
			addr, read := oneRead(t, network, addr)
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					near, far := net.Pipe()
					defer near.Close()
					defer far.Close()
					v := &Visit{
						ID: "c1", Host: "a.example", Source: source, Destination: destination, Proxy: tt.proxy, Emit: tt.its,
						First: ReadFirst(far, 100, Begun{Read: []byte(tt.first)}), // of a silent visitor, who is not waited for
					}
					d, err := NewStatic(StaticConfig{Network: network, Address: addr, ProxyProtocol: tt.own}).Dial(t.Context(), v)
					if err != nil {
						t.Fatal(err)
					}
					if d.FirstSent != tt.sent {
						t.Errorf("first sent: %t, want %t", d.FirstSent, tt.sent)
					}
					if tt.want == "" {
						_ = d.Conn.CloseWrite() // so that the read ends
					}
					if got := <-read; got != tt.want {
						t.Errorf("read at once %q\nwant %q", got, tt.want)
					}
					_ = d.Conn.Close()
					_, _ = v.First.Stop()
				})
			}
		})
	}
}

// TestPROXYHeaderStandsBeforeTLS is as HAProxy has it: the header is not part of what is encrypted.
func TestPROXYHeaderStandsBeforeTLS(t *testing.T) {
	addr, read := oneRead(t, "tcp", "127.0.0.1:0")
	m := NewStatic(StaticConfig{Network: "tcp", Address: addr, TLS: &tls.Config{}, ProxyProtocol: proxyproto.Emission{Version: proxyproto.V1}})
	_, err := m.Dial(t.Context(), &Visit{Source: netip.MustParseAddrPort("198.51.100.7:1"), Destination: netip.MustParseAddrPort("192.0.2.99:2")})
	if err == nil {
		t.Fatal("the service spoke TLS")
	}
	got := <-read
	if want := "PROXY TCP4 198.51.100.7 192.0.2.99 1 2\r\n"; len(got) < len(want) || got[:len(want)] != want {
		t.Errorf("got %q", got)
	}
}

// TestFailedHeaderIsAFailedDial has a service that is gone by the time of the write: another member may have the visitor
// only if none of its bytes was in it.
func TestFailedHeaderIsAFailedDial(t *testing.T) {
	for _, first := range []string{"", "hello"} {
		near, far := net.Pipe()
		c := brokenConn{far}
		m := NewStatic(StaticConfig{Network: "tcp", Address: "broken", ProxyProtocol: proxyproto.Emission{Version: proxyproto.V1}})
		sent, err := m.introduce(c, &Visit{}, ReadFirst(far, 100, Begun{Read: []byte(first + "x")[:len(first)]}))
		if !errors.Is(err, io.ErrClosedPipe) || sent != (first != "") {
			t.Errorf("with %q: sent %t, %v", first, sent, err)
		}
		_ = near.Close()
		_ = far.Close()
	}
}

type brokenConn struct{ net.Conn }

func (brokenConn) Write([]byte) (int, error)        { return 0, io.ErrClosedPipe }
func (brokenConn) SetWriteDeadline(time.Time) error { return nil }
