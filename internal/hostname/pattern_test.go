package hostname

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParsePattern(t *testing.T) {
	tests := []struct {
		name, in, want string // want "" means refused
	}{
		{"every host", "*", "*"},
		{"one host", "App.Example.com.", "app.example.com"},
		{"wildcard", "*.Dev.example.com.", "*.dev.example.com"},
		{"wildcard in unicode", "*.münchen.de", "*.xn--mnchen-3ya.de"},
		{"wildcard of a top-level domain", "*.com", "*.com"},
		{"IPv4", "192.0.2.1", "192.0.2.1"},
		{"IPv6", "[::1]", "::1"},
		{"empty", "", ""},
		{"wildcard of nothing", "*.", ""},
		{"two wildcards", "*.*.com", ""},
		{"double star", "**", ""},
		{"star in a label", "a*.com", ""},
		{"star before a name", "*example.com", ""},
		{"star inside", "a.*.com", ""},
		{"full-width star", "＊.example.com", ""},
		{"wildcard with a full-width dot", "*．example.com", ""},
		{"wildcard of an IPv4 address", "*.192.0.2.1", ""},
		{"wildcard of an IPv6 address", "*.[::1]", ""},
		{"port", "app.example.com:443", ""},
		{"empty port", "app.example.com:", ""},
		{"wildcard with port", "*.example.com:443", ""},
		{"every host with port", "*:443", ""},
		{"path", "app.example.com/api", ""},
		{"wildcard that leaves no room", "*." + strings.Repeat("a.", 127), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePattern(tt.in)
			if got.String() != tt.want || (err == nil) != (tt.want != "") || got.IsZero() != (tt.want == "") {
				t.Errorf("ParsePattern(%.80q) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestPatternMatch(t *testing.T) {
	tests := []struct {
		pattern, host string
		want          bool
	}{
		{"*", "app.example.com", true},
		{"*", "::1", true},
		{"*", "", false},
		{"app.example.com", "app.example.com", true},
		{"app.example.com", "b.app.example.com", false},
		{"app.example.com", "example.com", false},
		{"*.example.com", "app.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", ".example.com", false},
		{"*.example.com", "badexample.com", false},
		{"*.example.com", "app.example.com.evil", false},
		{"", "app.example.com", false},
		{"", "", false},
	}
	for _, tt := range tests {
		p := Pattern{}
		if tt.pattern != "" {
			p = mustParse(t, tt.pattern)
		}
		if got := p.Match(tt.host); got != tt.want {
			t.Errorf("%q.Match(%q) = %v, want %v", tt.pattern, tt.host, got, tt.want)
		}
	}
}

func TestPatternCovers(t *testing.T) {
	tests := []struct {
		p, q string
		want bool
	}{
		{"*", "*", true},
		{"*", "*.example.com", true},
		{"*", "app.example.com", true},
		{"*", "", false},
		{"", "", false},
		{"", "app.example.com", false},
		{"*.example.com", "*", false},
		{"*.example.com", "*.example.com", true},
		{"*.example.com", "*.dev.example.com", true},
		{"*.example.com", "app.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "*.com", false},
		{"*.example.com", "*.badexample.com", false},
		{"*.dev.example.com", "*.example.com", false},
		{"app.example.com", "app.example.com", true},
		{"app.example.com", "*.app.example.com", false},
		{"app.example.com", "*", false},
		{"app.example.com", "b.example.com", false},
	}
	for _, tt := range tests {
		var p, q Pattern
		if tt.p != "" {
			p = mustParse(t, tt.p)
		}
		if tt.q != "" {
			q = mustParse(t, tt.q)
		}
		if got := p.Covers(q); got != tt.want {
			t.Errorf("%q.Covers(%q) = %v, want %v", tt.p, tt.q, got, tt.want)
		}
	}
}

// Covers is inclusion: what it grants, Match must allow, and what it denies, some host shows.
func TestCoversIsInclusionOfMatch(t *testing.T) {
	name := rapid.StringMatching(`[ab](\.[ab]){0,3}`)
	pattern := rapid.Custom(func(t *rapid.T) Pattern {
		s := name.Draw(t, "name")
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			s = "*"
		case 1, 2:
			s = "*." + s
		}
		p, err := ParsePattern(s)
		if err != nil {
			t.Fatalf("ParsePattern(%q): %v", s, err)
		}
		return p
	})
	rapid.Check(t, func(t *rapid.T) {
		p, q := pattern.Draw(t, "p"), pattern.Draw(t, "q")
		host := name.Draw(t, "host")
		if p.Covers(q) && q.Match(host) && !p.Match(host) {
			t.Fatalf("%s covers %s, which matches %s, which it does not match itself", p, q, host)
		}
		// "x" stands for every label that p's text cannot hold.
		witness := strings.Replace(q.String(), "*", "x", 1)
		if !p.Covers(q) && p.Match(witness) {
			t.Fatalf("%s does not cover %s, yet matches its host %s", p, q, witness)
		}
	})
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"*", "*.dev.example.com", "app.example.com", "*.xn--mnchen-3ya.de", "*.1.2.3.4", "*.*", "[::1]", "*.\u00ad"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		p, err := ParsePattern(in)
		if err != nil {
			if !p.IsZero() {
				t.Fatalf("ParsePattern(%q) = %q with error %v; want the zero Pattern with an error", in, p, err)
			}
			return
		}
		if again, err := ParsePattern(p.String()); again != p || err != nil {
			t.Fatalf("ParsePattern(%q) = %q, read again %q, %v", in, p, again, err)
		}
		if !p.Covers(p) {
			t.Fatalf("%q does not cover itself", p)
		}
		host, err := Canonical(strings.Replace(p.String(), "*", "x", 1))
		if err != nil || !p.Match(host) {
			t.Fatalf("%q does not match its host %q (%v)", p, host, err)
		}
	})
}

func BenchmarkPatternMatch(b *testing.B) {
	p := mustParse(b, "*.dev.example.com")
	b.ReportAllocs()
	for b.Loop() {
		p.Match("app.dev.example.com")
	}
}

func mustParse(t testing.TB, s string) Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatalf("ParsePattern(%q): %v", s, err)
	}
	return p
}
