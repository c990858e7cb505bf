package proxyproto

import (
	"bytes"
	"cmp"
	"testing"
)

// FuzzParse holds for any bytes: the answer does not depend on how they are cut, nothing behind the header is looked at,
// and what was read is written and read again as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 203.0.113.7 198.51.100.1 8080 443\r\nGET /"), uint16(0))
	f.Add([]byte("PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 8080 443\r\n"), uint16(0))
	f.Add([]byte("PROXY UNKNOWN junk\r\n"), uint16(107))
	f.Add(awsHealth(f), uint16(4096))
	f.Add(head2(proxied, 0x11, inet4), uint16(0))
	f.Add(head2sum(0x21, inet6, field2(TypeAuthority, []byte("example.com")), field2(TypeNoop, []byte{0})), uint16(0))
	f.Add(head2(proxied, 0x31, unixPaths("/a", "\x00b")), uint16(0))
	f.Fuzz(func(t *testing.T, p []byte, limit uint16) {
		most := cmp.Or(int(limit), MaxParsed)
		h, n, more, err := parse(p, most)
		if is, maybe := Signature(p); !is && !maybe && err != ErrNone || is && err == ErrNone || maybe && !more {
			t.Fatalf("signature %t, maybe %t, but more %t and %v", is, maybe, more, err)
		}
		if more || err != nil {
			if n != 0 || more && err != nil {
				t.Fatalf("more %t and %v with %d bytes", more, err, n)
			}
			return
		}
		if n > len(p) || n > max(MaxV1, most) {
			t.Fatalf("%d of %d bytes, at most %d", n, len(p), most)
		}
		for i := range n {
			if _, _, more, err := parse(p[:i], most); !more || err != nil {
				t.Fatalf("the first %d of %d: more %t, %v", i, n, more, err)
			}
		}
		again := h.AppendTo(nil, h.Version)
		second, size, _, err := parse(again, MaxV2)
		if err != nil || size != len(again) {
			t.Fatalf("%q, written as %q: %d, %v", p[:n], again, size, err)
		}
		if h.Source != second.Source || h.Destination != second.Destination {
			t.Fatalf("got %+v, then %+v", h, second)
		}
		if third := second.AppendTo(nil, h.Version); !bytes.Equal(third, again) {
			t.Fatalf("written as %q, then as %q", again, third)
		}
	})
}
