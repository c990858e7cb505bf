package auth

import (
	"errors"
	"strings"
	"testing"

	"culvert/internal/hostname"
)

func TestPermit(t *testing.T) {
	grant := Grant{
		Hosts:   patterns(t, "app.example.com", "*.dev.example.com"),
		Ports:   mustPorts(t, "2222,8000-8100"),
		Names:   []string{"db", "team-*", "v?"},
		Visit:   []string{"cache"},
		Forward: []string{"db.internal:5432", "10.0.0.0/8:22", "[2001:db8::/32]:1-1024", "*.svc.internal:*"},
		Divert:  []string{"devices", "dev-*"},
		Read:    true,
	}
	tests := []struct {
		action Action
		denied string // "" means permitted
	}{
		{OfferHost(pattern(t, "app.example.com")), ""},
		{OfferHost(pattern(t, "APP.example.com.")), ""},
		{OfferHost(pattern(t, "a.b.dev.example.com")), ""},
		{OfferHost(pattern(t, "*.dev.example.com")), ""},
		{OfferHost(pattern(t, "*.x.dev.example.com")), ""},
		{
			OfferHost(pattern(t, "dev.example.com")),
			"the token may not offer host dev.example.com: it is granted hosts app.example.com, *.dev.example.com",
		},
		{
			OfferHost(pattern(t, "*")),
			"the token may not offer host *: it is granted hosts app.example.com, *.dev.example.com",
		},
		{
			OfferHost(hostname.Pattern{}),
			"the token may not offer host : it is granted hosts app.example.com, *.dev.example.com",
		},
		{OfferPort(2222), ""},
		{OfferPort(8050), ""},
		{OfferPort(22), "the token may not offer port 22: it is granted ports 2222, 8000-8100"},
		{OfferPort(0), "the token may not offer port 0: it is granted ports 2222, 8000-8100"},
		{OfferName("db"), ""},
		{OfferName("team-red"), ""},
		{OfferName("v1"), ""},
		{OfferName("DB"), "the token may not offer name DB: it is granted names db, team-*, v?"},
		{OfferName("db2"), "the token may not offer name db2: it is granted names db, team-*, v?"},
		{OfferName(""), `the token may not offer name "": it is granted names db, team-*, v?`},
		{OfferName("team-a/b"), "the token may not offer name team-a/b: it is granted names db, team-*, v?"},
		{OfferName("x\nlevel=ERROR"), `the token may not offer name "x\nlevel=ERROR": it is granted names db, team-*, v?`},
		{Visit("cache"), ""},
		{Visit("db"), "the token may not visit db: it is granted visits to cache"},
		{ForwardTo("db.internal:5432"), ""},
		{ForwardTo("10.1.2.3:22"), ""},
		{
			ForwardTo("169.254.169.254:80"),
			"the token may not forward to 169.254.169.254:80: it is granted forwarding to " +
				"db.internal:5432, 10.0.0.0/8:22, [2001:db8::/32]:1-1024, *.svc.internal:*",
		},
		{Divert("devices"), ""},
		{Divert("dev-1"), ""},
		{Divert("tcp/2222"), "the token may not divert traffic of entrypoint tcp/2222: it is granted diverts of devices, dev-*"},
		{Divert("device"), "the token may not divert traffic of entrypoint device: it is granted diverts of devices, dev-*"},
		{Divert("dev-1/x"), "the token may not divert traffic of entrypoint dev-1/x: it is granted diverts of devices, dev-*"},
		{Read(), ""},
		{Administer(), "the token may not administer the server"},
		{Action{}, "the token may not do nothing in particular"},
	}
	for _, tt := range tests {
		t.Run(tt.action.String(), func(t *testing.T) {
			err := grant.Permit(tt.action)
			if tt.denied == "" {
				if err != nil {
					t.Errorf("got %v, want it permitted", err)
				}
				return
			}
			var denied *Denied
			if !errors.As(err, &denied) || err.Error() != tt.denied || denied.Action != tt.action {
				t.Errorf("got  %v\nwant %s", err, tt.denied)
			}
		})
	}
}

func everyAction(t testing.TB) []Action {
	return []Action{
		OfferHost(pattern(t, "*")), OfferHost(pattern(t, "a.example.com")), OfferPort(1), OfferPort(65535), OfferName("db"), Visit("db"),
		ForwardTo("127.0.0.1:22"), ForwardTo("[::1]:22"), ForwardTo("db.internal:5432"), Divert("devices"), Divert("tcp/2222"), Read(),
		Administer(),
	}
}

func TestEverythingAndNothing(t *testing.T) {
	for _, a := range everyAction(t) {
		if err := Everything().Permit(a); err != nil {
			t.Errorf("everything: %v", err)
		}
		var denied *Denied
		if err := (Grant{}).Permit(a); !errors.As(err, &denied) {
			t.Errorf("the zero grant permits to %s: %v", a, err)
		}
	}
	for _, want := range []struct {
		action Action
		text   string
	}{
		{OfferPort(22), "the token may not offer port 22: it is granted no ports"},
		{Visit("db"), "the token may not visit db: it is granted no visits"},
		{ForwardTo("a:1"), "the token may not forward to a:1: it is granted no forwarding"},
		{Divert("a"), "the token may not divert traffic of entrypoint a: it is granted no diverts"},
		{Read(), "the token may not read status and metrics"},
	} {
		if err := (Grant{}).Permit(want.action); err == nil || err.Error() != want.text {
			t.Errorf("got %v, want %s", err, want.text)
		}
	}
	// Nothing at all permits what no name, port or host is.
	for _, a := range []Action{{}, OfferHost(hostname.Pattern{}), OfferPort(0), OfferName(""), Visit(""), ForwardTo(""), Divert("")} {
		if Everything().Permit(a) == nil {
			t.Errorf("everything permits to %s", a)
		}
	}
	if err := Everything().Validate(); err != nil {
		t.Error(err)
	}
}

// Security T4 and C4: B is granted hosts of its own, and tries for A's app.example.com however it can be spelled.
func TestAnotherTenantsHostInManySpellings(t *testing.T) {
	b := Grant{
		Hosts: patterns(t, "b.example.com", "*.b.example.com", "xn--mnchen-3ya.test"), Ports: mustPorts(t, "8000"), Names: []string{"b-*"},
	}
	spellings := []string{
		"app.example.com", "APP.EXAMPLE.COM", "App.Example.Com", "app.example.com.", "app.example.com..", "app.example.com:443",
		"app.example.com:", "app.example.com.:443", "app.example.com:0", ".app.example.com", "app..example.com", " app.example.com",
		"app.example.com ", "app.example.com\t", "app.example.com\x00", "app.example.com\x00.b.example.com", "app.example.com\r\n",
		"*.example.com", "*", "*.", "*.com", "**", "*.*", "a*.example.com", "app.*", "*app.example.com", "ａｐｐ.example.com",
		"app．example．com", "app。example。com", "app.example.com。", "ⓐⓟⓟ.example.com", "𝐚𝐩𝐩.example.com", "a\u00adpp.example.com",
		"a\u200bpp.example.com", "app.example.ⅽom", "app%2eexample.com", "%61pp.example.com", "xn--app-.example.com",
		"app.example.com/b.example.com", "app.example.com#b.example.com", "app.example.com?b.example.com", `app.example.com\b.example.com`,
		"b.example.com@app.example.com", "app.example.com@b.example.com", "b.example.com:80@app.example.com", "app.example.com,b.example.com",
		"app.example.com b.example.com", "http://app.example.com", "//app.example.com", "[app.example.com]", "example.com", "com",
		"evilb.example.com", "b.example.com.evil.test", "b.example.comx", "*.example.com.", "＊.example.com", "",
		"127.0.0.1", "0x7f000001", "2130706433", "127.1", "[::1]", "[::ffff:127.0.0.1]", "localhost",
	}
	for _, s := range spellings {
		p, err := hostname.ParsePattern(s)
		if err != nil {
			continue // refused before a grant is asked
		}
		if b.Permit(OfferHost(p)) == nil {
			t.Errorf("B may offer %q, read as %q", s, p)
		}
	}
	for _, s := range []string{"B.example.com.", "x.b.example.com", "*.B.example.com", "*.x.b.example.com", "MÜNCHEN.test"} {
		if err := b.Permit(OfferHost(pattern(t, s))); err != nil {
			t.Errorf("B's own: %v", err)
		}
	}
	for _, a := range []Action{
		OfferPort(2222), OfferPort(0), OfferName("a-db"), OfferName("B-db"), OfferName("x/b-db"), Visit("b-db"), ForwardTo("127.0.0.1:22"),
		Read(), Administer(),
	} {
		if b.Permit(a) == nil {
			t.Errorf("B may %s", a)
		}
	}
}

func TestForwardTargets(t *testing.T) {
	tests := []struct {
		pattern, target string
		want            bool
	}{
		{"db.internal:5432", "db.internal:5432", true},
		{"DB.internal.:5432", "db.Internal:5432", true},
		{"db.internal:5432", "db.internal:5433", false},
		{"db.internal:5432", "xdb.internal:5432", false},
		{"db.internal:*", "db.internal:1", true},
		{"db.internal:*", "db.internal:0", false},
		{"db.internal:5000-6000", "db.internal:5432", true},
		{"*.internal:22", "a.b.internal:22", true},
		{"*.internal:22", "internal:22", false},
		{"*.internal:22", "a.internal.evil.test:22", false},
		{"db-[0-9].internal:22", "db-7.internal:22", true},
		{"*:22", "anything.test:22", true},
		{"*:22", "[::1]:22", true},
		{"*:22", "127.0.0.1:22", true},
		{"10.0.0.0/8:22", "10.1.2.3:22", true},
		{"10.0.0.0/8:22", "11.1.2.3:22", false},
		{"10.0.0.0/8:22", "[::ffff:10.1.2.3]:22", true},
		{"10.0.0.0/8:22", "[::ffff:a01:203]:22", true},
		{"10.0.0.0/8:22", "10.evil.test:22", false},
		{"10.0.0.0/8:22", "010.1.2.3:22", false},
		{"10.0.0.0/8:22", "167772161:22", false},
		{"10.0.0.0/8:22", "0xa.0.0.1:22", false},
		{"10.0.0.1:22", "10.0.0.1:22", true},
		{"10.0.0.1:22", "[::ffff:10.0.0.1]:22", true},
		{"[::1]:22", "[::1]:22", true},
		{"[::1]:22", "[0:0::1]:22", true},
		{"[::1]:22", "[::1%lo]:22", false},
		{"[2001:db8::/32]:443", "[2001:db8:1::1]:443", true},
		{"[2001:db8::/32]:443", "[2001:db9::1]:443", false},
		{"[2001:db8::]/32:443", "[2001:db8::1]:443", false}, // malformed
		{"c*:22", "[c::1]:22", false},
		{"db.internal:5432", "[db.internal:5432]:5432", false},
		{"db.internal:5432", "db.internal", false},
		{"db.internal:*", "db.internal:ssh", false},
		{"db.internal:5432", "user@db.internal:5432", false},
		{"db.internal:5432", "db.internal:5432:5432", false},
		{"*:*", ":22", false},
		{"*:*", "", false},
	}
	for _, tt := range tests {
		if got := (Grant{Forward: []string{tt.pattern}}).Permit(ForwardTo(tt.target)) == nil; got != tt.want {
			t.Errorf("forward %q permits %q: %v, want %v", tt.pattern, tt.target, got, tt.want)
		}
	}
}

func TestValidateFindsAllFaults(t *testing.T) {
	err := Grant{
		Hosts:   []hostname.Pattern{{}},
		Names:   []string{"[", "ok"},
		Visit:   []string{""},
		Forward: []string{"a", "a:b", "10.0.*.*:22", "::1:22", "[::1:22", "[a]:22", "10.0.0.0/99:22", "[::ffff:10.0.0.0/104]:22", "[a*:1", "ok:*"},
	}.Validate()
	if err == nil {
		t.Fatal("got no error")
	}
	want := []string{
		"host is empty",
		`name "[": not a name, nor a pattern with '*', '?' and '[a-z]'`,
		`name "": not a name, nor a pattern with '*', '?' and '[a-z]'`,
		`forward "a": want HOST:PORT, CIDR:PORT or HOST:*`,
		`forward "a:b": "b" is not a port from 1 to 65535`,
		`forward "10.0.*.*:22": a pattern without letters: write addresses as a CIDR such as 10.0.0.0/16`,
		`forward "::1:22": an IPv6 address or CIDR wants brackets`,
		`forward "[::1:22": brackets hold anything but an IPv6 address or CIDR`,
		`forward "[a]:22": brackets hold anything but an IPv6 address or CIDR`,
		`forward "10.0.0.0/99:22": netip.ParsePrefix("10.0.0.0/99"): prefix length out of range`,
		`forward "[::ffff:10.0.0.0/104]:22": `,
		`forward "[a*:1": brackets hold anything but an IPv6 address or CIDR`,
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("got %d faults, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("got %s\nwant %s", lines[i], want[i])
		}
	}
}

func TestDeniedCutsLongLists(t *testing.T) {
	g := Grant{Names: strings.Split(strings.Repeat("name ", 500), " ")}
	if err := g.Permit(OfferName("x")); err == nil || len(err.Error()) > 200 || !strings.HasSuffix(err.Error(), "and 491 more") {
		t.Errorf("got %v; want a short message", err)
	}
}

func TestPermitAllocatesNothing(t *testing.T) {
	g := Everything()
	for _, a := range []Action{OfferHost(pattern(t, "a.example.com")), OfferPort(22), OfferName("db"), Visit("db"), Read()} {
		if n := testing.AllocsPerRun(100, func() { _ = g.Permit(a) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", a, n)
		}
	}
}

// Whatever a peer asks to be forwarded to, a grant of one target permits only addresses that are that target.
func FuzzForwardTo(f *testing.F) {
	for _, s := range []string{"db.internal:5432", "DB.INTERNAL.:5432", "[::ffff:10.0.0.1]:22", "10.0.0.1:22", "[a:1]:22", ":", "[::1%x]:22"} {
		f.Add(s)
	}
	g := Grant{Forward: []string{"db.internal:5432", "10.0.0.1:22"}}
	f.Fuzz(func(t *testing.T, target string) {
		if g.Permit(ForwardTo(target)) != nil {
			return
		}
		c, err := hostname.Canonical(target)
		if err != nil || c != "db.internal" && c != "10.0.0.1" {
			t.Fatalf("%q is permitted, which is %q, %v", target, c, err)
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"*:*", "10.0.0.0/8:22", "[::/0]:1-2", "*.a:1", "[a-z].b:1", `\:1`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parseTarget(s); err == nil {
			p.permits("a.example.com", 80)
			if p.permits("127.0.0.1", 80) && p.glob != "*" && p.glob != "127.0.0.1" && !p.prefix.IsValid() {
				t.Fatalf("%q permits an address by a pattern of names", s)
			}
		}
	})
}

func pattern(t testing.TB, s string) hostname.Pattern {
	t.Helper()
	p, err := hostname.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func patterns(t testing.TB, list ...string) []hostname.Pattern {
	t.Helper()
	var ps []hostname.Pattern
	for _, s := range list {
		ps = append(ps, pattern(t, s))
	}
	return ps
}
