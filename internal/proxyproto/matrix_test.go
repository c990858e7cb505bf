package proxyproto

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// head2 is a header of version 2: command, family, and what follows the length.
func head2(command, family byte, body ...[]byte) []byte {
	p := append([]byte(signature2), 0x20|command, family, 0, 0)
	for _, b := range body {
		p = append(p, b...)
	}
	binary.BigEndian.PutUint16(p[14:], uint16(len(p)-16))
	return p
}

func field2(kind byte, value []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value))), value...)
}

// summed fills in the checksum, whose field ends the header.
func summed(p []byte) []byte {
	p = append(p, field2(TypeCRC32C, make([]byte, 4))...)
	binary.BigEndian.PutUint16(p[14:], uint16(len(p)-16))
	binary.BigEndian.PutUint32(p[len(p)-4:], checksum(p, len(p)-4))
	return p
}

var (
	inet4 = []byte{203, 0, 113, 7, 198, 51, 100, 1, 0x1f, 0x90, 0x01, 0xbb} // 203.0.113.7:8080 to 198.51.100.1:443
	inet6 = append(append(netip.MustParseAddr("2001:db8::7").AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice()...), 0x1f, 0x90, 0x01, 0xbb)

	source4, destination4 = netip.MustParseAddrPort("203.0.113.7:8080"), netip.MustParseAddrPort("198.51.100.1:443")
	source6, destination6 = netip.MustParseAddrPort("[2001:db8::7]:8080"), netip.MustParseAddrPort("[2001:db8::1]:443")
)

func tcp4(version Version, tlvs ...TLV) Header {
	return Header{Version: version, Transport: TCP, Source: source4, Destination: destination4, TLVs: tlvs}
}

func unixPaths(source, destination string) []byte {
	p := make([]byte, 216)
	copy(p, source)
	copy(p[108:], destination)
	return p
}

// awsHealth is what AWS's network balancer sends to a target with a health check, as captured in
// https://github.com/kubernetes/kubernetes/issues/57250: LOCAL, the family of TCP over IPv4, no addresses, a CRC32C and
// padding, 84 bytes of them.
func awsHealth(t testing.TB) []byte {
	p, err := hex.DecodeString("0d0a0d0a000d0a515549540a20110054030004d0b1a8f304003e" + strings.Repeat("00", 62))
	if err != nil {
		t.Fatal(err)
	}
	for len(p) < 100 {
		p = append(p, 0)
	}
	return p[:100]
}

// TestMatrix is the conformance matrix, row by row: what HAProxy 2.6, nginx 1.22 and go-proxyproto 0.15 make of each was
// measured; want is what the specification asks for, or what is safer where it leaves a choice.
func TestMatrix(t *testing.T) {
	vpce := TLV{0xea, append([]byte{1}, "vpce-08d2bf15fac5001c9"...)}
	large := TLV{0xe0, make([]byte, 3000)}
	tests := []struct {
		name string
		in   []byte
		want Header
		err  string // part of the error; "" for none
	}{
		{"v1 IPv4", []byte("PROXY TCP4 203.0.113.7 198.51.100.1 8080 443\r\n"), tcp4(V1), ""},
		{
			"v1 IPv6",
			[]byte("PROXY TCP6 2001:db8::7 2001:db8::1 8080 443\r\n"),
			Header{Version: V1, Transport: TCP, Source: source6, Destination: destination6},
			"",
		},
		{
			"v1 of IPv4 in IPv6, as both families are written together",
			[]byte("PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 8080 443\r\n"),
			Header{Version: V1, Transport: TCP, Source: source4, Destination: destination6},
			"",
		},
		{
			"v1 of 107 bytes",
			longestV1(),
			Header{Version: V1},
			"",
		},
		{"v1 with a line feed alone", []byte("PROXY TCP4 203.0.113.7 198.51.100.1 8080 443\n"), Header{}, "CR LF"},
		{"v1 UNKNOWN", []byte("PROXY UNKNOWN\r\n"), Header{Version: V1}, ""},
		{"v1 UNKNOWN and junk", []byte("PROXY UNKNOWN junk, \x00 and more\r\n"), Header{Version: V1}, ""},
		{"v1 UNKNOWN without a space before the junk", []byte("PROXY UNKNOWNjunk\r\n"), Header{}, "not a family"},
		{"v1 leading zeros in an address", []byte("PROXY TCP4 203.000.113.007 198.51.100.1 8080 443\r\n"), Header{}, "not an address"},
		{"v1 leading zeros in a port", []byte("PROXY TCP4 203.0.113.7 198.51.100.1 08080 443\r\n"), Header{}, "not a port"},
		{"v1 a sign before a port", []byte("PROXY TCP4 203.0.113.7 198.51.100.1 +8080 443\r\n"), Header{}, "not a port"},
		{"v1 port 70000", []byte("PROXY TCP4 203.0.113.7 198.51.100.1 70000 443\r\n"), Header{}, "not a port"},
		{"v1 port 65536", []byte("PROXY TCP4 203.0.113.7 198.51.100.1 8080 65536\r\n"), Header{}, "not a port"},
		{"v1 of 108 bytes", []byte("PROXY UNKNOWN " + strings.Repeat("f", MaxV1-15) + "\r\n"), Header{}, "too long"},
		{"v1 without an end", []byte("PROXY TCP6 " + strings.Repeat("f", 200)), Header{}, "too long"},
		{"v1 TCP6 with an IPv4 address", []byte("PROXY TCP6 2001:db8::7 198.51.100.1 8080 443\r\n"), Header{}, "TCP6 with the address 198.51.100.1"},
		{"v1 TCP4 with an IPv6 address", []byte("PROXY TCP4 2001:db8::7 198.51.100.1 8080 443\r\n"), Header{}, "TCP4 with the address"},
		{"v1 with a zone", []byte("PROXY TCP6 fe80::1%eth0 fe80::2 8080 443\r\n"), Header{}, "not an address"},
		{"v1 of UDP", []byte("PROXY UDP4 203.0.113.7 198.51.100.1 8080 443\r\n"), Header{}, "not a family"},
		{"v1 two spaces", []byte("PROXY TCP4  203.0.113.7 198.51.100.1 8080 443\r\n"), Header{}, "not a family"},
		{"v1 a field more", []byte("PROXY TCP4 203.0.113.7 198.51.100.1 8080 443 1\r\n"), Header{}, "not a family"},
		{"v1 a field less", []byte("PROXY TCP4 203.0.113.7 198.51.100.1 8080\r\n"), Header{}, "not a family"},
		{"v1 in lower case", []byte("proxy TCP4 203.0.113.7 198.51.100.1 8080 443\r\n"), Header{}, "no PROXY header"},

		{"v2 LOCAL without a body", head2(local, 0), Header{Version: V2, Local: true}, ""},
		{"v2 LOCAL with addresses, which are skipped", head2(local, 0x11, inet4), Header{Version: V2, Local: true}, ""},
		{"v2 LOCAL of a family that nobody knows", head2(local, 0x73, []byte("anything")), Header{Version: V2, Local: true}, ""},
		{"health check of AWS", awsHealth(t), Header{Version: V2, Local: true}, ""},
		{
			"AWS with checksum, endpoint and padding, 84 bytes",
			head2sum(0x11, inet4, field2(0xea, vpce.Value), field2(TypeNoop, make([]byte, 84-12-7-25-3-1))), tcp4(V2, vpce), "",
		},
		{"v2 PROXY of an unspecified family", head2(proxied, 0x00, inet4), Header{Version: V2}, ""},
		{"v2 PROXY of an unspecified transport", head2(proxied, 0x10, inet4), Header{Version: V2}, ""},
		{"v2 command 2", head2(2, 0x11, inet4), Header{}, "version and command 0x22"},
		{"v2 version 3", slices.Concat([]byte(signature2), []byte{0x31, 0x11, 0, 12}, inet4), Header{}, "version and command 0x31"},
		{"v2 family 4", head2(proxied, 0x41, inet4), Header{}, "family and transport 0x41"},
		{"v2 transport 3", head2(proxied, 0x13, inet4), Header{}, "family and transport 0x13"},
		{"v2 TCP over IPv4", head2(proxied, 0x11, inet4), tcp4(V2), ""},
		{
			"v2 TCP over IPv6", head2(proxied, 0x21, inet6),
			Header{Version: V2, Transport: TCP, Source: source6, Destination: destination6},
			"",
		},
		{
			"v2 UDP over IPv4, on TCP too", head2(proxied, 0x12, inet4),
			Header{Version: V2, Transport: UDP, Source: source4, Destination: destination4},
			"",
		},
		{
			"v2 of a Unix socket, with label", head2(proxied, 0x31, unixPaths("/run/a.sock", "\x00abstract")),
			Header{Version: V2, Transport: Unix, SourcePath: "/run/a.sock", DestinationPath: "\x00abstract"},
			"",
		},
		{"v2 of a Unix socket, cut", head2(proxied, 0x31, make([]byte, 215)), Header{}, "too few"},
		{"v2 TCP over IPv4 with 4 bytes", head2(proxied, 0x11, inet4[:4]), Header{}, "too few"},
		{"v2 TCP over IPv6 with the addresses of IPv4", head2(proxied, 0x21, inet4), Header{}, "too few"},
		{"v2 of 108 bytes", head2(proxied, 0x11, inet4, field2(0xe0, make([]byte, 77))), tcp4(V2, TLV{0xe0, make([]byte, 77)}), ""},
		{"v2 of 3000 bytes more", head2(proxied, 0x11, inet4, field2(0xe0, large.Value)), tcp4(V2, large), ""},
		{"v2 of 4096 bytes", head2(proxied, 0x11, inet4, field2(0xe0, make([]byte, 4096-31))), tcp4(V2, TLV{0xe0, make([]byte, 4096-31)}), ""},
		{"v2 of 4097 bytes", head2(proxied, 0x11, inet4, field2(0xe0, make([]byte, 4097-31))), Header{}, "too long: 4097 bytes, at most 4096"},
		{"v2 with a field that overruns it", head2(proxied, 0x11, inet4, []byte{0xe0, 0, 9, 1, 2}), Header{}, "longer than the header"},
		{"v2 with two bytes behind the fields", head2(proxied, 0x11, inet4, []byte{0xe0, 0, 0, 1, 2}), Header{}, "longer than the header"},
		{"v2 with an empty field", head2(proxied, 0x11, inet4, []byte{0xe0, 0, 0}), tcp4(V2, TLV{0xe0, []byte{}}), ""},
		{"v2 with a checksum", head2sum(0x11, inet4), tcp4(V2), ""},
		{"v2 with a wrong checksum", wrong(head2sum(0x11, inet4), -1), Header{}, "checksum"},
		{"v2 with a checksum of something else", wrong(head2sum(0x11, inet4), 17), Header{}, "checksum"},
		{"v2 with a checksum of three bytes", head2(proxied, 0x11, inet4, field2(TypeCRC32C, []byte{1, 2, 3})), Header{}, "checksum"},
		{"v2 with two checksums", summed(head2sum(0x11, inet4)), Header{}, "checksum"},
		{"v2 with a unique id of 128 bytes", head2(proxied, 0x11, inet4, field2(TypeUniqueID, make([]byte, 128))), tcp4(V2, TLV{TypeUniqueID, make([]byte, 128)}), ""},
		{"v2 with a unique id of 129 bytes", head2(proxied, 0x11, inet4, field2(TypeUniqueID, make([]byte, 129))), Header{}, "unique id of 129 bytes"},

		{"HTTP", []byte("GET / HTTP/1.1\r\n"), Header{}, "no PROXY header"},
		{"TLS", []byte{22, 3, 1, 2, 0}, Header{}, "no PROXY header"},
		{"an empty line and more", []byte("\r\n\r\nGET"), Header{}, "no PROXY header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, behind := range []string{"", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"} { // a second header is payload
				in := append(slices.Clone(tt.in), behind...)
				got, n, more, err := Parse(in)
				if tt.err != "" {
					if err == nil || !strings.Contains(err.Error(), tt.err) {
						t.Fatalf("got %+v, %v; want an error with %q", got, err, tt.err)
					}
					continue
				}
				if err != nil || more || n != len(tt.in) {
					t.Fatalf("got %d of %d bytes, more %t, %v", n, len(in), more, err)
				}
				if diff := cmp.Diff(tt.want, got, addrPorts()); diff != "" {
					t.Errorf("want, got:\n%s", diff)
				}
			}
			everyBeginning(t, tt.in, tt.err)
		})
	}
}

// everyBeginning parses the input as it comes byte by byte. What is right in the end is never refused on the way, and
// what is wrong never accepted.
func everyBeginning(t *testing.T, in []byte, wrong string) {
	t.Helper()
	for i := range in {
		_, n, more, err := Parse(in[:i])
		switch {
		case wrong == "" && (!more || err != nil):
			t.Fatalf("the first %d bytes: more %t, %v; want more", i, more, err)
		case wrong != "" && !more && err == nil:
			t.Fatalf("the first %d bytes are taken for a header of %d", i, n)
		case err != nil && !strings.Contains(err.Error(), wrong) && !errors.Is(err, ErrTooLong) && !strings.Contains(err.Error(), "unknown family"):
			t.Fatalf("the first %d bytes: %v, the whole: %q", i, err, wrong)
		}
	}
}

func TestRowsHaveTheLengthsOfTheirNames(t *testing.T) {
	if n := len(awsHealth(t)); n != 100 { // of which 84 stand behind the fixed part
		t.Errorf("health check of AWS: %d bytes", n)
	}
	if n := len(longestV1()); n != MaxV1 {
		t.Errorf("longest line: %d bytes", n)
	}
}

// longestV1 is the longest line that the specification knows.
func longestV1() []byte {
	address := strings.Repeat("ffff:", 7) + "ffff "
	return []byte("PROXY UNKNOWN " + address + address + "65535 65535\r\n")
}

func head2sum(family byte, body ...[]byte) []byte { return summed(head2(proxied, family, body...)) }

func wrong(p []byte, at int) []byte {
	if at < 0 {
		at += len(p)
	}
	p[at] ^= 1
	return p
}

func addrPorts() cmp.Option {
	return cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
}

func TestWhatIsWrongIsSeenAtOnce(t *testing.T) {
	for _, in := range []string{"PROXY X", "PROXY TCP5", "PROXY TCP44", "PROXY unknown", signature2 + "\x22", signature2 + "\x21\x51", signature2 + "\x21\x11\xff\xff"} {
		if _, _, more, err := Parse([]byte(in)); more || err == nil {
			t.Errorf("%q: more %t, %v", in, more, err)
		}
	}
}

func TestMaximumIsThatOfTheCaller(t *testing.T) {
	p := head2(proxied, 0x11, inet4, field2(0xe0, make([]byte, 100)))
	if _, _, _, err := parse(p, len(p)-1); !errors.Is(err, ErrTooLong) {
		t.Errorf("one byte too long: %v", err)
	}
	if _, _, _, err := parse(p[:16], len(p)-1); !errors.Is(err, ErrTooLong) {
		t.Errorf("known from the length already: %v", err)
	}
	if _, n, _, err := parse(p, len(p)); err != nil || n != len(p) {
		t.Errorf("just fits: %d, %v", n, err)
	}
	long := head2(proxied, 0x11, inet4, field2(0xe0, make([]byte, 60000)))
	if _, n, _, err := parse(long, MaxV2); err != nil || n != len(long) {
		t.Errorf("the most: %d, %v", n, err)
	}
}

func TestSignature(t *testing.T) {
	tests := []struct {
		in        string
		is, maybe bool
	}{
		{"", false, true},
		{"P", false, true},
		{"PROXY", false, true},
		{"PROXY ", true, false},
		{"PROXY TCP4", true, false},
		{"PROXIES", false, false},
		{"POST /", false, false},
		{"\r\n", false, true},
		{signature2[:11], false, true},
		{signature2, true, false},
		{signature2 + "!", true, false},
		{"\r\n\r\n\x00\r\nQUIT\r", false, false},
		{"SSH-2.0-", false, false},
	}
	for _, tt := range tests {
		if is, maybe := Signature([]byte(tt.in)); is != tt.is || maybe != tt.maybe {
			t.Errorf("%q: got %t and %t, want %t and %t", tt.in, is, maybe, tt.is, tt.maybe)
		}
	}
}

func TestHeaderSharesNoMemoryWithTheBytes(t *testing.T) {
	p := head2(proxied, 0x11, inet4, field2(0xe0, []byte("value")))
	h, _, _, err := Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	clear(p)
	if v, ok := h.TLV(0xe0); !ok || string(v) != "value" || h.Source != source4 {
		t.Errorf("got %q, %s", v, h.Source)
	}
}

func TestParseVersion(t *testing.T) {
	for _, v := range []Version{Off, V1, V2} {
		if got, err := ParseVersion(v.String()); err != nil || got != v {
			t.Errorf("%q: got %v, %v", v, got, err)
		}
	}
	if _, err := ParseVersion("v3"); err == nil || !strings.Contains(err.Error(), "write v1 or v2") {
		t.Errorf("v3: %v", err)
	}
}
