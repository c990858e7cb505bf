package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"culvert/internal/hostname"
)

func prefixes(t testing.TB, texts ...string) (list []netip.Prefix) {
	t.Helper()
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func patterns(t testing.TB, texts ...string) (list []hostname.Pattern) {
	t.Helper()
	for _, s := range texts {
		p, err := hostname.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func table(t testing.TB, routes ...L4Route) *L4 {
	t.Helper()
	l4, err := NewL4(routes)
	if err != nil {
		t.Fatal(err)
	}
	return l4
}

func key(source, host string) L4Key { return L4Key{Source: netip.MustParseAddr(source), Host: host} }

func TestTheFirstRouteThatFitsWins(t *testing.T) {
	l4 := table(
		t,
		L4Route{Upstream: "all-of-ten", Sources: prefixes(t, "10.0.0.0/8")},
		L4Route{Upstream: "narrow, but below", Sources: prefixes(t, "10.1.0.0/16", "2001:db8::/32")},
		L4Route{Upstream: "one", Sources: prefixes(t, "192.0.2.1/32")},
		L4Route{Upstream: "api", Hosts: patterns(t, "api.example.com")},
		L4Route{Upstream: "wild", Hosts: patterns(t, "*.example.com")},
		L4Route{Upstream: "both", Sources: prefixes(t, "198.51.100.0/24"), Hosts: patterns(t, "*.example.org")},
		L4Route{Upstream: "rest"},
		L4Route{Upstream: "never"},
	)
	for _, c := range []struct{ source, host, want string }{
		{"10.1.2.3", "", "all-of-ten"},
		{"2001:db8::1", "", "narrow, but below"},
		{"192.0.2.1", "api.example.com", "one"},
		{"192.0.2.2", "api.example.com", "api"},
		{"192.0.2.2", "www.example.com", "wild"},
		{"192.0.2.2", "a.b.example.com", "wild"},
		{"192.0.2.2", "example.com", "rest"},
		{"198.51.100.7", "www.example.org", "both"},
		{"198.51.100.7", "", "rest"},
		{"192.0.2.2", "www.example.org", "rest"},
	} {
		i, ok := l4.Match(key(c.source, c.host), 0)
		if !ok || l4.Route(i).Upstream != c.want {
			t.Errorf("%s %s: got route %d (%t), want %s", c.source, c.host, i, ok, c.want)
		}
	}
}

func TestAMatchGoesOnBelowARoute(t *testing.T) {
	l4 := table(
		t,
		L4Route{Upstream: "a", Sources: prefixes(t, "10.0.0.0/8")},
		L4Route{Upstream: "b", Hosts: patterns(t, "*")},
		L4Route{Upstream: "c", Sources: prefixes(t, "10.1.0.0/16")},
		L4Route{Upstream: "d", Hosts: patterns(t, "x.example.com")},
	)
	var got []int
	for from := 0; ; from++ {
		i, ok := l4.Match(key("10.1.1.1", "x.example.com"), from)
		if !ok {
			break
		}
		got, from = append(got, i), i
	}
	if want := "[0 1 2 3]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if i, ok := l4.Match(key("192.0.2.1", ""), 0); ok {
		t.Errorf("got route %d for a connection that none fits", i)
	}
}

func TestARouteTakesItsPercent(t *testing.T) {
	l4 := table(t, L4Route{Upstream: "some", Percent: 25, Sources: prefixes(t, "0.0.0.0/0")}, L4Route{Upstream: "rest"})
	rolls := rand.New(rand.NewPCG(1, 2))
	const all = 100_000
	some := 0
	for range all {
		if i, _ := l4.Match(L4Key{Source: netip.MustParseAddr("192.0.2.1"), Roll: rolls.Uint32()}, 0); i == 0 {
			some++
		}
	}
	if share := float64(some) / all; share < 0.24 || share > 0.26 {
		t.Errorf("got a share of %.3f, want 0.25", share)
	}
	whole := table(t, L4Route{Upstream: "all", Percent: 100}, L4Route{Upstream: "rest"})
	if i, _ := whole.Match(L4Key{Source: netip.MustParseAddr("192.0.2.1"), Roll: 1<<32 - 1}, 0); i != 0 {
		t.Error("100 percent is not all")
	}
}

func TestRoutesThatCannotBeAreRefused(t *testing.T) {
	for name, r := range map[string]L4Route{
		"no upstream": {},
		"a share":     {Upstream: "a", Percent: 101},
		"negative":    {Upstream: "a", Percent: -1},
		"mapped":      {Upstream: "a", Sources: prefixes(t, "::ffff:10.0.0.0/104")},
		"no prefix":   {Upstream: "a", Sources: []netip.Prefix{{}}},
		"no host":     {Upstream: "a", Hosts: []hostname.Pattern{{}}},
	} {
		if _, err := NewL4([]L4Route{r}); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// What the trie and the maps answer is what asking each route in turn answers.
func TestAMatchIsThatOfALinearSearch(t *testing.T) {
	dice := rand.New(rand.NewPCG(3, 4))
	hosts := []string{"a.test", "b.a.test", "*.a.test", "*.b.a.test", "*", "c.test"}
	addr := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(dice.IntN(3)), byte(dice.IntN(3)), byte(dice.IntN(4))})
	}
	for range 300 {
		var routes []L4Route
		for range dice.IntN(12) {
			r := L4Route{Upstream: "u"}
			for range dice.IntN(3) {
				p, _ := addr().Prefix(8 + dice.IntN(25))
				r.Sources = append(r.Sources, p)
			}
			for range dice.IntN(5) / 3 {
				r.Hosts = append(r.Hosts, patterns(t, hosts[dice.IntN(len(hosts))])...)
			}
			if dice.IntN(4) == 0 {
				r.Percent = float64(dice.IntN(101))
			}
			routes = append(routes, r)
		}
		l4 := table(t, routes...)
		for range 50 {
			k := L4Key{Source: addr(), Host: []string{"", "a.test", "b.a.test", "x.b.a.test", "c.test", "d.test"}[dice.IntN(6)], Roll: dice.Uint32()}
			from := dice.IntN(len(routes) + 1)
			want := len(routes)
			for i := from; i < len(routes); i++ {
				if routes[i].fits(k) {
					want = i
					break
				}
			}
			if got, ok := l4.Match(k, from); got != want || ok != (want < len(routes)) {
				t.Fatalf("%+v from %d in %+v: got %d, want %d", k, from, routes, got, want)
			}
		}
	}
}

// The bar: a table of 10,000 source rules is matched in under 200 ns, with no allocation.
func BenchmarkL4Of10000Sources(b *testing.B) {
	dice := rand.New(rand.NewPCG(5, 6))
	var routes []L4Route
	for range 10_000 {
		a := netip.AddrFrom4([4]byte{byte(dice.Uint32()), byte(dice.Uint32()), byte(dice.Uint32()), byte(dice.Uint32())})
		p, _ := a.Prefix(12 + dice.IntN(21))
		routes = append(routes, L4Route{Upstream: "u", Sources: []netip.Prefix{p}})
	}
	routes = append(routes, L4Route{Upstream: "rest"})
	l4 := table(b, routes...)
	keys := make([]L4Key, 1024)
	for i := range keys {
		keys[i].Source = netip.AddrFrom4([4]byte{byte(dice.Uint32()), byte(dice.Uint32()), byte(dice.Uint32()), byte(dice.Uint32())})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l4.Match(keys[i%len(keys)], 0)
	}
}

// What a connection costs by the kinds of conditions that its routes have: hosts cost the same however many there are, routes
// with conditions of two kinds are asked one by one.
func BenchmarkL4ByConditions(b *testing.B) {
	var hosts, both []L4Route
	for i := range 1000 {
		host := patterns(b, fmt.Sprintf("*.h%d.example.com", i))
		hosts = append(hosts, L4Route{Upstream: "u", Hosts: host})
		both = append(both, L4Route{Upstream: "u", Hosts: host, Sources: prefixes(b, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))})
	}
	for name, routes := range map[string][]L4Route{
		"1000 hosts":                      hosts,
		"16 hosts with a source":          both[:16],
		"a share":                         {{Upstream: "u", Percent: 10}},
		"everyone, as most ports have it": {},
	} {
		l4 := table(b, append(slices.Clone(routes), L4Route{Upstream: "rest"})...)
		k := L4Key{Source: netip.MustParseAddr("192.0.2.1"), Host: "www.h999.example.com", Roll: 1 << 31}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l4.Match(k, 0)
			}
		})
	}
}

func TestAMatchAllocatesNothing(t *testing.T) {
	l4 := table(
		t,
		L4Route{Upstream: "a", Sources: prefixes(t, "10.0.0.0/8")},
		L4Route{Upstream: "b", Hosts: patterns(t, "*.example.com")},
		L4Route{Upstream: "rest", Percent: 50},
	)
	k := key("192.0.2.1", "a.b.c.example.com")
	if n := testing.AllocsPerRun(100, func() { l4.Match(k, 0) }); n != 0 {
		t.Errorf("got %v allocations", n)
	}
}
