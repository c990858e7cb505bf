package peek

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"
)

// captured is the ClientHello that Go's own client sends.
func captured(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		_ = tls.Client(far, cfg).Handshake() // ends by the Close of near
	}()
	var head [recordHeader]byte
	if _, err := readFull(near, head[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := readFull(near, body); err != nil {
		t.Fatal(err)
	}
	return append(head[:], body...)
}

func readFull(c net.Conn, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Read(p[n:])
		n += m
	}
	return n, err
}

func helloFor(t testing.TB, name string) []byte {
	return captured(t, &tls.Config{ServerName: name, InsecureSkipVerify: name == ""})
}

// inRecords cuts the handshake message of one record into records of at most size bytes.
func inRecords(hello []byte, size int) []byte {
	var p []byte
	for piece := range slices.Chunk(hello[recordHeader:], size) {
		p = append(p, hello[:3]...)
		p = binary.BigEndian.AppendUint16(p, uint16(len(piece)))
		p = append(p, piece...)
	}
	return p
}

// built is a ClientHello with these extensions, each as type and body.
func built(extensions ...[]byte) []byte {
	body := slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0, 0, 2, 0x13, 1, 1, 0})
	all := slices.Concat(extensions...)
	body = append(binary.BigEndian.AppendUint16(body, uint16(len(all))), all...)
	message := append([]byte{1, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(body)))...)
	message = append(message, body...)
	return append(binary.BigEndian.AppendUint16([]byte{22, 3, 1}, uint16(len(message))), message...)
}

func extension(kind uint16, body []byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, kind)
	return append(binary.BigEndian.AppendUint16(p, uint16(len(body))), body...)
}

func names(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, 0)
		list = append(binary.BigEndian.AppendUint16(list, uint16(len(n))), n...)
	}
	return extension(0, append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...))
}

func TestClientHello(t *testing.T) {
	whole := helloFor(t, "api.example.com")
	tests := []struct {
		name  string
		in    []byte
		host  string
		match Match
	}{
		{"of Go", whole, "api.example.com", Yes},
		{"of Go, TLS 1.2", captured(t, &tls.Config{ServerName: "api.example.com", MaxVersion: tls.VersionTLS12}), "api.example.com", Yes},
		{"of Go, without a name", helloFor(t, ""), "", Yes},
		{"of Go, to an address", helloFor(t, "192.0.2.1"), "", Yes},
		{"in two records", inRecords(whole, len(whole)/2), "api.example.com", Yes},
		{"in records of 7 bytes", inRecords(whole, 7), "api.example.com", Yes},
		{"in records of 1 byte", inRecords(whole, 1), "api.example.com", Yes},
		{"with early data behind it", append(slices.Clone(whole), 23, 3, 3, 0, 1, 0), "api.example.com", Yes},
		{"upper case and the root's dot", built(names("API.Example.COM.")), "api.example.com", Yes},
		{"an address, which is no name", built(names("192.0.2.1")), "", Yes},
		{"an IPv6 address", built(names("2001:db8::1")), "", Yes},
		{"a name with a port", built(names("api.example.com:443")), "", Yes},
		{"a name that is none", built(names("a..b/c d")), "", Yes},
		{"other extensions around it", built(extension(5, []byte{1, 0, 0, 0, 0}), names("a.example"), extension(0xff01, []byte{0})), "a.example", Yes},
		{"no extensions", built(), "", Yes},
		{"two names", built(names("a.example", "b.example")), "", No},
		{"the extension twice", built(names("a.example"), names("b.example")), "", No},
		{"an empty name", built(names("")), "", No},
		{"an empty list", built(names()), "", No},
		{"a list that overruns", built(extension(0, []byte{0, 9, 0, 0, 1, 'a'})), "", No},
		{"an extension that overruns", built([]byte{0, 0, 0, 9, 1}), "", No},
		{"nothing", nil, "", More},
		{"the record's header alone", whole[:5], "", More},
		{"all but a byte", whole[:len(whole)-1], "", More},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", No},
		{"SSH", []byte("SSH-2.0-OpenSSH"), "", No},
		{"a TLS alert", []byte{21, 3, 3, 0, 2, 1, 0}, "", No},
		{"a ServerHello", []byte{22, 3, 3, 0, 4, 2}, "", No},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1}, "", No},
		{"an empty record", []byte{22, 3, 1, 0, 0}, "", No},
		{"a record that is too long", []byte{22, 3, 1, 0x40, 1}, "", No},
		{"a message that is too long", []byte{22, 3, 1, 0, 4, 1, 1, 0, 0}, "", No},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, match := parseWhole(tt.in)
			if got.Host != tt.host || match != tt.match {
				t.Errorf("got %q and %d, want %q and %d", got.Host, match, tt.host, tt.match)
			}
			var h Hello // byte by byte
			for i := range tt.in {
				m := h.Match(tt.in[:i+1])
				if m == No && tt.match != No {
					t.Fatalf("refused after %d of %d bytes", i+1, len(tt.in))
				}
				if m != More {
					if h.Host != tt.host || m != tt.match {
						t.Fatalf("after %d bytes: got %q and %d", i+1, h.Host, m)
					}
					return
				}
			}
			if tt.match != More {
				t.Error("never certain byte by byte")
			}
		})
	}
}

// parseWhole is Match for bytes that come at once.
func parseWhole(p []byte) (ClientHello, Match) {
	var h Hello
	m := h.Match(p)
	return h.ClientHello, m
}

func TestClientHelloALPN(t *testing.T) {
	p := captured(t, &tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}})
	if h, m := parseWhole(p); m != Yes || !slices.Equal(h.ALPN, []string{"h2", "http/1.1"}) {
		t.Errorf("got %q, %d", h.ALPN, m)
	}
}

func TestClientHelloHasAMaximum(t *testing.T) {
	// Records that go on for ever without the message being whole.
	message := append([]byte{1, 0, 0xff, 0xf0}, make([]byte, 0xfff0)...)
	in := inRecords(append([]byte{22, 3, 1, 0, 0}, message...), maxRecord)
	if _, m := parseWhole(in); m != No { // the headers are too much
		t.Errorf("of %d bytes: got %d", len(in), m)
	}
	crumbs := inRecords(append([]byte{22, 3, 1, 0, 0, 1, 0, 0x30, 0}, make([]byte, 0x3000)...), 1)
	if _, m := parseWhole(crumbs[:70000]); m != No { // the message alone would fit
		t.Errorf("of %d bytes, most of them headers: got %d", len(crumbs), m)
	}
	fits := captured(t, &tls.Config{ServerName: "a.example", NextProtos: slices.Repeat([]string{strings.Repeat("x", 250)}, 40)})
	if len(fits) < 10000 {
		t.Fatalf("only %d bytes", len(fits))
	}
	if h, m := parseWhole(fits); m != Yes || h.Host != "a.example" {
		t.Errorf("of %d bytes: got %q, %d", len(fits), h.Host, m)
	}
}

// TestClientHelloInCrumbsIsCheap is about a stranger who sends records of a byte, each in a packet of its own: looking at
// everything each time would take minutes.
func TestClientHelloInCrumbsIsCheap(t *testing.T) {
	message := append([]byte{1, 0, 0x2a, 0}, make([]byte, 0x2a00)...)
	in := inRecords(append([]byte{22, 3, 1, 0, 0}, message...), 1)
	var h Hello
	work := testing.AllocsPerRun(1, func() {
		h = Hello{}
		for i := range in {
			if h.Match(in[:i]) != More {
				t.Fatalf("certain after %d", i)
			}
		}
	})
	if work > 100 {
		t.Errorf("%v allocations for %d bytes", work, len(in))
	}
}

func TestUnrecognizedNameIsTLSsOwnAlert(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		buf := make([]byte, 4096)
		_, _ = far.Read(buf)
		_, _ = far.Write(UnrecognizedName())
	}()
	err := tls.Client(near, &tls.Config{ServerName: "nobody.example"}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("got %v", err)
	}
}

// FuzzClientHello holds for any bytes: how they are cut makes no difference, and a host is canonical.
func FuzzClientHello(f *testing.F) {
	whole := helloFor(f, "api.example.com")
	f.Add(whole, uint16(3))
	f.Add(inRecords(whole, 50), uint16(77))
	f.Add(built(names("a.example")), uint16(9))
	f.Fuzz(func(t *testing.T, p []byte, cut uint16) {
		got, match := parseWhole(p)
		var h Hello
		m := h.Match(p[:min(int(cut), len(p))])
		if m == More {
			m = h.Match(p)
		}
		if m != match || h.Host != got.Host {
			t.Fatalf("whole: %d %q; in two: %d %q", match, got.Host, m, h.Host)
		}
		if got.Host != "" && canonical(got.Host) != got.Host {
			t.Fatalf("%q is not canonical", got.Host)
		}
		if bytes.IndexByte(p[:min(len(p), 1)], recordHandshake) != 0 && len(p) > 0 && match != No {
			t.Fatalf("%x is taken for TLS", p)
		}
	})
}
