package hostname

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCanonical(t *testing.T) {
	long := strings.Repeat("a", 63) + "."
	tests := []struct {
		name, in, want string // want "" means refused
	}{
		{"plain", "app.example.com", "app.example.com"},
		{"one label", "localhost", "localhost"},
		{"upper case", "APP.Example.COM", "app.example.com"},
		{"trailing dot", "app.example.com.", "app.example.com"},
		{"port", "app.example.com:443", "app.example.com"},
		{"empty port", "app.example.com:", "app.example.com"},
		{"trailing dot and port", "app.example.com.:8443", "app.example.com"},
		{"underscore", "_dmarc.ex_ample.com", "_dmarc.ex_ample.com"},
		{"hyphens in third and fourth place", "r3---sn-x.example.com", "r3---sn-x.example.com"},
		{"digits first", "3com.com", "3com.com"},
		{"longest name", long + long + long + strings.Repeat("a", 61), long + long + long + strings.Repeat("a", 61)},
		{"highest port", "a:65535", "a"},

		{"unicode", "münchen.de", "xn--mnchen-3ya.de"},
		{"unicode upper case", "MÜNCHEN.DE", "xn--mnchen-3ya.de"},
		{"unicode in two code points", "mu\u0308nchen.de", "xn--mnchen-3ya.de"},
		{"punycode", "xn--mnchen-3ya.de", "xn--mnchen-3ya.de"},
		{"punycode upper case", "XN--MNCHEN-3YA.de", "xn--mnchen-3ya.de"},
		{"sharp s stays itself", "faß.de", "xn--fa-hia.de"},
		{"full width", "ａｐｐ.example.com", "app.example.com"},
		{"circled digit", "①.de", "1.de"},
		{"ideographic dot", "app。example。com", "app.example.com"},
		{"ideographic dot at the end", "münchen.de。", "xn--mnchen-3ya.de"},
		{"soft hyphen", "a\u00adpp.example.com", "app.example.com"},
		{"unicode with underscore", "_ü.de", "xn--_-eha.de"},

		{"IPv4", "192.0.2.1", "192.0.2.1"},
		{"IPv4 with port", "192.0.2.1:80", "192.0.2.1"},
		{"IPv4 with trailing dot", "192.0.2.1.", "192.0.2.1"},
		{"IPv4 in full width", "１９２.0.2.1", "192.0.2.1"},
		{"IPv6 in brackets", "[2001:DB8:0::1]", "2001:db8::1"},
		{"IPv6 with port", "[2001:db8::1]:8080", "2001:db8::1"},
		{"IPv6 with empty port", "[2001:db8::1]:", "2001:db8::1"},
		{"IPv6 bare", "2001:db8::1", "2001:db8::1"},
		{"IPv4 in IPv6", "[::ffff:192.0.2.1]:80", "192.0.2.1"},
		{"IPv4 in IPv6, hexadecimal", "::ffff:c000:201", "192.0.2.1"},

		{"empty", "", ""},
		{"only a dot", ".", ""},
		{"only a port", ":80", ""},
		{"empty label", "app..example.com", ""},
		{"leading dot", ".example.com", ""},
		{"two trailing dots", "example.com..", ""},
		{"two trailing dots, one ideographic", "example.com。.", ""},
		{"label that maps to nothing", "example.com.\u00ad", ""},
		{"punycode of nothing", "example.com.xn--", ""},
		{"punycode of ASCII", "xn--app-.com", ""},
		{"punycode of a capital", "xn--hxa-x.de", ""},
		{"too long", long + long + long + strings.Repeat("a", 62), ""},
		{"far too long", strings.Repeat("ü", 100_000), ""},
		{"label too long", strings.Repeat("a", 64) + ".com", ""},
		{"unicode label too long in ASCII", strings.Repeat("ü", 62) + ".com", ""},
		{"hyphen first", "-rf.example.com", ""},
		{"hyphen last", "rf-.example.com", ""},
		{"user information", "user@app.example.com", ""},
		{"user and password", "user:pw@app.example.com", ""},
		{"user, password and port", "user:pw@app.example.com:80", ""},
		{"space", "app example.com", ""},
		{"leading space", " app.example.com", ""},
		{"no-break space", "app\u00a0example.com", ""},
		{"new line", "app.example.com\n", ""},
		{"NUL", "app.example.com\x00.evil", ""},
		{"DEL", "app\x7f.com", ""},
		{"slash", "app.example.com/", ""},
		{"full-width slash", "app.example.com／x", ""},
		{"full-width colon", "app.example.com：80", ""},
		{"backslash", `app.example.com\x`, ""},
		{"percent", "app%2eexample.com", ""},
		{"comma", "app.example.com,evil", ""},
		{"wildcard", "*.example.com", ""},
		{"full-width wildcard", "＊.example.com", ""},
		{"not UTF-8", "app\xff.com", ""},
		{"not UTF-8 after UTF-8", "ü\xff.com", ""},
		{"fullwidth letters and one bad", "⒈com", ""},
		{"joiner alone", "\u200d.de", ""},

		{"port of letters", "a:http", ""},
		{"port zero", "a:0", ""},
		{"port too high", "a:65536", ""},
		{"port with a sign", "a:+80", ""},
		{"port with many zeros", "a:000080", ""},
		{"port with a space", "a: 80", ""},
		{"scheme", "https://app.example.com", ""},
		{"bad port after IPv6", "[::1]:x", ""},
		{"text after IPv6", "[::1]x", ""},
		{"bracket left open", "[::1", ""},
		{"bracket never opened", "::1]", ""},
		{"IPv4 in brackets", "[192.0.2.1]", ""},
		{"name in brackets", "[example.com]", ""},
		{"zone", "[fe80::1%eth0]", ""},
		{"zone, escaped", "[fe80::1%25eth0]", ""},
		{"three colons", "::::", ""},

		{"address, decimal", "2130706433", ""},
		{"address, hexadecimal", "0x7f000001", ""},
		{"address, octal", "0177.0.0.1", ""},
		{"address, hexadecimal parts", "0x7f.0.0.0x1", ""},
		{"address, short", "127.1", ""},
		{"address, part too high", "1.2.3.256", ""},
		{"address, five parts", "1.2.3.4.5", ""},
		{"name that ends in a number", "app.1", ""},
		{"name that ends in 0x", "app.0x", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Canonical(tt.in)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("Canonical(%.80q) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestCanonicalErrorShowsNoRawBytes(t *testing.T) {
	_, err := Canonical("evil\r\nlevel=ERROR " + strings.Repeat("x", 500))
	if err == nil || strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 200 {
		t.Errorf("got %v; want an error that is short and on one line", err)
	}
}

// Whatever is done to a host that leaves it the same host leaves its canonical form the same.
func TestCanonicalIsOneForAllSpellings(t *testing.T) {
	label := rapid.StringMatching(`[a-z_]([a-z0-9_-]{0,8}[a-z_])?`)
	rapid.Check(t, func(t *rapid.T) {
		want := strings.Join(rapid.SliceOfN(label, 1, 5).Draw(t, "labels"), ".")
		if _, err := Canonical(want); err != nil {
			t.Skip(err) // xn-- at random
		}
		b := []rune(want)
		for i, up := range rapid.SliceOfN(rapid.IntRange(0, 2), len(b), len(b)).Draw(t, "spelling") {
			switch c := b[i]; {
			case c == '.' && up == 2:
				b[i] = '。'
			case c >= 'a' && c <= 'z' && up == 1:
				b[i] -= 'a' - 'A'
			case c >= 'a' && c <= 'z' && up == 2:
				b[i] += 'ａ' - 'a'
			}
		}
		in := string(b) + rapid.SampledFrom([]string{"", ".", ":443", ".:80", ":"}).Draw(t, "end")
		if got, err := Canonical(in); got != want || err != nil {
			t.Fatalf("Canonical(%q) = %q, %v; want %q", in, got, err, want)
		}
	})
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		"app.example.com:443", "APP.example.com.", "münchen.de", "XN--MNCHEN-3YA.de.", "a。b", "xn--", "xn--a.de", "[::1]:80",
		"::ffff:1.2.3.4", "[fe80::1%25lo]", "u@h", "1.2.3.4", "0x7f.1", "⒈com", "a\u00ad.\u00ad", "a\x00b", "\u200d.de", "ǆ", "İ",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := Canonical(in)
		if err != nil {
			if got != "" {
				t.Fatalf("Canonical(%q) = %q with error %v; want nothing with an error", in, got, err)
			}
			return
		}
		if len(got) == 0 || len(got) > maxHost || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789-_.:") != "" ||
			strings.Contains(got, "..") || got[0] == '.' || got[len(got)-1] == '.' {
			t.Fatalf("Canonical(%q) = %q; want only what hosts are made of", in, got)
		}
		for _, again := range []string{got, strings.ToUpper(got)} {
			if g, err := Canonical(again); g != got || err != nil {
				t.Fatalf("Canonical(%q) = %q, but Canonical(%q) = %q, %v", in, got, again, g, err)
			}
		}
		if strings.Contains(got, ":") {
			return
		}
		if g, err := Canonical(got + ".:80"); g != got || err != nil {
			t.Fatalf("Canonical(%q) = %q, %v; want %q", got+".:80", g, err, got)
		}
	})
}

func TestCanonicalAllocatesNothingForCanonicalNames(t *testing.T) {
	for _, host := range []string{"app.example.com", "app.example.com:443", "192.0.2.1:80"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = Canonical(host) }); n != 0 {
			t.Errorf("Canonical(%q) makes %v allocations, want 0", host, n)
		}
	}
}

func BenchmarkCanonical(b *testing.B) {
	for _, host := range []string{"app.example.com:443", "App.Example.Com", "xn--mnchen-3ya.de", "192.0.2.1:80", "[2001:db8::1]:80"} {
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = Canonical(host)
			}
		})
	}
}
