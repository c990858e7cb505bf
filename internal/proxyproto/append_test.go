package proxyproto

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAppendV1(t *testing.T) {
	four, six := netip.MustParseAddrPort("203.0.113.7:8080"), netip.MustParseAddrPort("[2001:db8::1]:443")
	tests := []struct {
		name string
		h    Header
		want string
	}{
		{"IPv4", Header{Transport: TCP, Source: four, Destination: destination4}, "PROXY TCP4 203.0.113.7 198.51.100.1 8080 443\r\n"},
		{"IPv6", Header{Transport: TCP, Source: source6, Destination: six}, "PROXY TCP6 2001:db8::7 2001:db8::1 8080 443\r\n"},
		{"IPv4 to IPv6", Header{Transport: TCP, Source: four, Destination: six}, "PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 8080 443\r\n"},
		{"IPv6 to IPv4", Header{Transport: TCP, Source: source6, Destination: destination4}, "PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 8080 443\r\n"},
		{
			"IPv4 as a dual-stack socket gives it",
			Header{Transport: TCP, Source: netip.MustParseAddrPort("[::ffff:203.0.113.7]:8080"), Destination: netip.MustParseAddrPort("[::ffff:198.51.100.1]:443")},
			"PROXY TCP4 203.0.113.7 198.51.100.1 8080 443\r\n",
		},
		{
			"a zone, which is nobody else's",
			Header{Transport: TCP, Source: netip.MustParseAddrPort("[fe80::7%eth0]:8080"), Destination: netip.MustParseAddrPort("[fe80::1%eth0]:443")},
			"PROXY TCP6 fe80::7 fe80::1 8080 443\r\n",
		},
		{"no destination", Header{Transport: TCP, Source: four}, "PROXY TCP4 203.0.113.7 0.0.0.0 8080 0\r\n"},
		{"no destination, IPv6", Header{Transport: TCP, Source: source6}, "PROXY TCP6 2001:db8::7 :: 8080 0\r\n"},
		{"nothing known", Header{Transport: TCP}, "PROXY UNKNOWN\r\n"},
		{"a health check of ours", Header{Local: true, Transport: TCP, Source: four, Destination: destination4}, "PROXY UNKNOWN\r\n"},
		{"UDP, for which version 1 has no word", Header{Transport: UDP, Source: four, Destination: destination4}, "PROXY UNKNOWN\r\n"},
		{"a Unix socket", Header{Transport: Unix, SourcePath: "/a"}, "PROXY UNKNOWN\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.h.AppendTo([]byte("before"), V1)
			if string(got) != "before"+tt.want {
				t.Errorf("got  %q\nwant %q", got[len("before"):], tt.want)
			}
		})
	}
}

func TestAppendV2IsReadAgain(t *testing.T) {
	tests := []struct {
		name string
		h    Header
		want Header // besides the version
	}{
		{"IPv4", tcp4(V2), tcp4(V2)},
		{"IPv4 to IPv6, mapped and back", Header{Transport: TCP, Source: source4, Destination: destination6}, Header{Transport: TCP, Source: source4, Destination: destination6}},
		{"UDP", Header{Transport: UDP, Source: source6, Destination: destination6}, Header{Transport: UDP, Source: source6, Destination: destination6}},
		{"UDP over IPv4", Header{Transport: UDP, Source: source4, Destination: destination4}, Header{Transport: UDP, Source: source4, Destination: destination4}},
		{"a Unix socket", Header{Transport: Unix, SourcePath: "/a", DestinationPath: "/b"}, Header{Transport: Unix, SourcePath: "/a", DestinationPath: "/b"}},
		{"health check", Header{Local: true}, Header{Local: true}},
		{"nothing known", Header{Transport: TCP}, Header{Local: true}},
		{
			"fields around a checksum",
			tcp4(V2, TLV{TypeAuthority, []byte("api.example.com")}, TLV{Type: TypeCRC32C}, TLV{TypeUniqueID, []byte("id")}),
			tcp4(V2, TLV{TypeAuthority, []byte("api.example.com")}, TLV{TypeUniqueID, []byte("id")}),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.h.AppendTo([]byte("before"), V2)[len("before"):]
			got, n, _, err := Parse(p)
			if err != nil || n != len(p) {
				t.Fatalf("%d of %d bytes, %v", n, len(p), err)
			}
			tt.want.Version = V2
			if diff := cmp.Diff(tt.want, got, addrPorts()); diff != "" {
				t.Errorf("want, got:\n%s", diff)
			}
		})
	}
}

func TestChecksumIsWritten(t *testing.T) {
	p := tcp4(V2, TLV{Type: TypeCRC32C}).AppendTo(nil, V2)
	if want := summed(head2(proxied, 0x11, inet4)); string(p) != string(want) {
		t.Fatalf("got  %x\nwant %x", p, want)
	}
}

// TestAppendStaysShort is for nginx before 1.25, which reads 107 bytes and no more.
func TestAppendStaysShort(t *testing.T) {
	long := netip.MustParseAddrPort("[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
	four := netip.MustParseAddrPort("255.255.255.255:65535")
	for _, h := range []Header{{Transport: TCP, Source: long, Destination: long}, {Transport: TCP, Source: long, Destination: four}} {
		for _, v := range []Version{V1, V2} {
			if n := len(h.AppendTo(nil, v)); n > MaxV1 {
				t.Errorf("%s: %d bytes", v, n)
			}
		}
	}
}

func TestAppendOffWritesNothing(t *testing.T) {
	if p := tcp4(V2).AppendTo([]byte("x"), Off); string(p) != "x" {
		t.Errorf("got %q", p)
	}
}

func TestTooManyFieldsAreLeftOut(t *testing.T) {
	p := tcp4(V2, TLV{0xe0, make([]byte, 40000)}, TLV{0xe1, make([]byte, 40000)}).AppendTo(nil, V2)
	h, n, _, err := parse(p, MaxV2)
	if err != nil || n != len(p) || len(h.TLVs) != 1 {
		t.Errorf("%d of %d bytes, %d fields, %v", n, len(p), len(h.TLVs), err)
	}
}

func TestEmission(t *testing.T) {
	before := &Header{TLVs: []TLV{{TypeAuthority, []byte("first.example.com")}, {TypeUniqueID, []byte("theirs")}, {0xea, []byte("vpce")}}}
	all := Emission{Version: V2, Authority: true, UniqueID: true, CRC32C: true}
	tests := []struct {
		name   string
		e      Emission
		host   string
		before *Header
		want   []TLV
	}{
		{"nothing asked for", Emission{Version: V2}, "own.example.com", before, nil},
		{"version 1 has no fields", Emission{Version: V1, Authority: true, UniqueID: true, CRC32C: true}, "own.example.com", nil, nil},
		{"our own", all, "own.example.com", nil, []TLV{{TypeAuthority, []byte("own.example.com")}, {TypeUniqueID, []byte("ours")}, {Type: TypeCRC32C}}},
		{"no host", all, "", nil, []TLV{{TypeUniqueID, []byte("ours")}, {Type: TypeCRC32C}}},
		{"those of the balancer in front", all, "own.example.com", before, []TLV{{TypeAuthority, []byte("first.example.com")}, {TypeUniqueID, []byte("theirs")}, {Type: TypeCRC32C}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := tt.e.Header(source4, destination4, "ours", tt.host, tt.before)
			if h.Source != source4 || h.Destination != destination4 || h.Transport != TCP {
				t.Errorf("got %+v", h)
			}
			if diff := cmp.Diff(tt.want, h.TLVs); diff != "" {
				t.Errorf("want, got:\n%s", diff)
			}
		})
	}
	long := all.Header(source4, destination4, strings.Repeat("x", MaxUniqueID+1), "", nil)
	if _, ok := long.TLV(TypeUniqueID); ok {
		t.Error("a unique id that no reader takes was written")
	}
}
