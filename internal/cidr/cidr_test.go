package cidr

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":               "10.0.0.0/8",
		"10.1.2.3/8":               "10.0.0.0/8",
		"203.0.113.7":              "203.0.113.7/32",
		"2001:db8::7":              "2001:db8::7/128",
		"2001:db8::7/32":           "2001:db8::/32",
		"::ffff:203.0.113.7":       "203.0.113.7/32",
		"::ffff:203.0.113.7/120":   "203.0.113.0/24",
		"::/0":                     "::/0",
		"0.0.0.0/0":                "0.0.0.0/0",
		"::ffff:203.0.113.7/95":    "::fffe:0:0/95",
		"":                         `"" is neither`,
		"10.0.0.0/33":              `"10.0.0.0/33" is neither`,
		"10.0.0":                   `"10.0.0" is neither`,
		"fe80::1%eth0":             "is neither",
		"fe80::%eth0/64":           "is neither",
		"localhost":                `"localhost" is neither an address nor a CIDR; write it as in 10.0.0.0/8 or 2001:db8::/32`,
		strings.Repeat("1", 100):   strings.Repeat("1", 60) + `…" is neither`,
		"203.0.113.7\n203.0.113.8": `\n`,
	} {
		p, err := Parse(text)
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %q, want %q in it", text, err, want)
			}
			continue
		}
		if p.String() != want {
			t.Errorf("%q: got %s, want %s", text, p, want)
		}
		if again, err := Parse(Text(p)); err != nil || again != p {
			t.Errorf("%q: written as %q, which is read as %s, %v", text, Text(p), again, err)
		}
	}
}

// An address is within a network however it is written.
func TestContain(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	for text, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "11.0.0.1": false, "fe80::1": true, "fe80::1%eth0": true, "2001:db8::1": false,
	} {
		if got := Contain(networks, netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %t, want %t", text, got, want)
		}
	}
	if Contain(networks, netip.Addr{}) || Contain(nil, netip.MustParseAddr("10.1.2.3")) {
		t.Error("no address, or no network, has the other")
	}
	addr := netip.MustParseAddr("::ffff:11.0.0.1")
	if n := testing.AllocsPerRun(100, func() { Contain(networks, addr) }); n > 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func TestSource(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.7": "203.0.113.7", "::ffff:203.0.113.7": "203.0.113.7", "2001:db8::1:2:3:4": "2001:db8::", "2001:db8:0:1::5": "2001:db8:0:1::",
		"fe80::1%eth0": "fe80::",
	} {
		if got := Source(netip.MustParseAddr(text)).String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if Source(netip.Addr{}).IsValid() {
		t.Error("no address has one")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("::ffff:10.0.0.1/97")
	f.Add("fe80::1%a/3")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(Text(p)); err != nil || again != p || p != p.Masked() || p.Addr().Is4In6() {
			t.Errorf("%q: %s, written as %q and read as %s, %v", text, p, Text(p), again, err)
		}
		if !Contain([]netip.Prefix{p}, p.Addr()) {
			t.Errorf("%s does not contain its own address", p)
		}
	})
}

func BenchmarkContain(b *testing.B) {
	var networks []netip.Prefix
	for i := range 16 {
		networks = append(networks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16))
	}
	addr := netip.MustParseAddr("192.0.2.1")
	for b.Loop() {
		Contain(networks, addr)
	}
}
