package client

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"culvert/internal/mux"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

var (
	visitor = netip.MustParseAddrPort("198.51.100.7:51000")
	wanted  = netip.MustParseAddrPort("192.0.2.99:8443")
)

const lineOfVisitor = "PROXY TCP4 198.51.100.7 192.0.2.99 51000 8443\r\n"

// TestServiceGetsThePROXYHeader has the service read once: the header, and with it what the visitor has said by then.
func TestServiceGetsThePROXYHeader(t *testing.T) {
	binary := func(tlvs ...proxyproto.TLV) string {
		h := proxyproto.Header{Transport: proxyproto.TCP, Source: visitor, Destination: wanted, TLVs: tlvs}
		return string(h.AppendTo(nil, proxyproto.V2))
	}
	off, v1, v2 := proxyproto.Off, proxyproto.V1, proxyproto.V2
	withID := proxyproto.Emission{Version: v2, UniqueID: true}
	tests := []struct {
		name    string
		setting *proxyproto.Version
		open    tunnel.Open // beside tunnel and addresses
		first   string
		want    string
	}{
		{"no wish", nil, tunnel.Open{}, "hello", "hello"},
		{"the server's wish", nil, tunnel.Open{ProxyProtocol: proxyproto.Emission{Version: v1}}, "", lineOfVisitor},
		{"with the first bytes", nil, tunnel.Open{ProxyProtocol: proxyproto.Emission{Version: v1}}, "hello", lineOfVisitor + "hello"},
		{"version 2 with the first bytes", nil, tunnel.Open{ProxyProtocol: proxyproto.Emission{Version: v2}}, "hello", binary() + "hello"},
		{"the connection's id", nil, tunnel.Open{ID: "c1", ProxyProtocol: withID}, "", binary(proxyproto.TLV{Type: proxyproto.TypeUniqueID, Value: []byte("c1")})},
		{"the id that a balancer gave", nil, tunnel.Open{ID: "c1", UniqueID: "theirs", ProxyProtocol: withID}, "", binary(proxyproto.TLV{Type: proxyproto.TypeUniqueID, Value: []byte("theirs")})},
		{"the client says none", &off, tunnel.Open{ProxyProtocol: proxyproto.Emission{Version: v1}}, "hello", "hello"},
		{"the client says another version", &v2, tunnel.Open{ProxyProtocol: proxyproto.Emission{Version: v1}}, "", binary()},
		{"the client alone says one", &v1, tunnel.Open{}, "hello", lineOfVisitor + "hello"},
		{"the client says the same, and the server more", &v2, tunnel.Open{ID: "c1", ProxyProtocol: withID}, "", binary(proxyproto.TLV{Type: proxyproto.TypeUniqueID, Value: []byte("c1")})},
		{"HTTP has words of its own", &v1, tunnel.Open{Tunnel: mustName(t, "http/*"), ProxyProtocol: proxyproto.Emission{Version: v1}}, "hello", "hello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, client := muxes(t)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			open, err := server.Open(t.Context(), []byte("open"))
			if err != nil {
				t.Fatal(err)
			}
			defer open.Reset()
			if _, err := io.WriteString(open, tt.first); err != nil {
				t.Fatal(err)
			}
			st := acceptNext(t, client)
			behind(t, server, client) // by now the client has what the visitor said

			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			there, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer there.Close()
			o := tt.open
			o.Source, o.Destination = visitor, wanted
			if o.Tunnel == (tunnel.Name{}) {
				o.Tunnel = tunnel.TCPName(2222)
			}
			s := service{proxyProtocol: tt.setting}
			if err := s.introduce(st, upstream.FromTCP(c.(*net.TCPConn)), &o); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4096)
			if tt.want == tt.first { // nothing was written: the relay does that
				_ = there.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if n, err := there.Read(got); err == nil {
					t.Errorf("got %q", got[:n])
				}
				return
			}
			_ = there.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := there.Read(got)
			if err != nil || string(got[:n]) != tt.want {
				t.Errorf("read at once %q, %v\nwant %q", got[:n], err, tt.want)
			}
		})
	}
}

// TestServiceGetsThePROXYHeaderThroughASession has a real session and a relay: the header comes first, then everything,
// once.
func TestServiceGetsThePROXYHeaderThroughASession(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	read := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "hi")
		p, _ := io.ReadAll(c)
		read <- string(p)
	}()
	offered := Upstream{Tunnel: tunnel.TCPName(2222), Scheme: SchemeTCP, Network: "tcp", Address: ln.Addr().String(), Spec: "2222=" + ln.Addr().String()}
	s := serverOf(t, offered)
	st, err := s.Open(t.Context(), tunnel.Open{Tunnel: offered.Tunnel, Source: visitor, Destination: wanted, ProxyProtocol: proxyproto.Emission{Version: proxyproto.V1}})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, p := range []string{"one ", "two ", "three"} {
		if _, err := io.WriteString(st, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if p, err := io.ReadAll(st); err != nil || string(p) != "hi" {
		t.Errorf("answer %q, %v", p, err)
	}
	if got, want := <-read, lineOfVisitor+"one two three"; got != want {
		t.Errorf("the service got %q, want %q", got, want)
	}
}

func mustName(t *testing.T, s string) tunnel.Name {
	t.Helper()
	n, err := tunnel.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func muxes(t *testing.T) (server, client *mux.Session) {
	t.Helper()
	a, b := net.Pipe()
	made := make(chan *mux.Session, 1)
	go func() {
		s, err := mux.Server(a, mux.Config{})
		if err != nil {
			t.Error(err)
		}
		made <- s
	}()
	client, err := mux.Client(b, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server = <-made
	t.Cleanup(func() {
		client.Close(nil)
		server.Close(nil)
	})
	return server, client
}

func acceptNext(t *testing.T, m *mux.Session) *mux.Stream {
	t.Helper()
	st, err := m.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Reset() })
	if err := st.Confirm(); err != nil {
		t.Fatal(err)
	}
	return st
}

// behind opens a stream after everything that the server has sent, and waits until the client has it.
func behind(t *testing.T, server, client *mux.Session) {
	t.Helper()
	st, err := server.Open(t.Context(), []byte("behind"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Reset() })
	if _, err := io.WriteString(st, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(acceptNext(t, client), make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}
