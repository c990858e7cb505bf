package router

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"

	"culvert/internal/cidr"
	"culvert/internal/hostname"
)

// L4Route sends connections and flows to an upstream. All the conditions that are given must hold; one that is empty always
// holds.
type L4Route struct {
	Name string // for metrics and logs
	// Sources are the visitors' addresses.
	Sources []netip.Prefix
	// Hosts are patterns of the name in the ClientHello. A connection without one fits none.
	Hosts []hostname.Pattern
	// Percent is the share of connections that the route takes, by the dice of their key; 0 and 100 are all of them.
	Percent float64
	// Upstream is the name of an upstream.
	Upstream string
	// Fallback has the routes below tried for a connection that the upstream certainly did not serve.
	Fallback bool
}

// L4Key is what is known of a connection or flow when it is routed.
type L4Key struct {
	Source netip.Addr // without a zone, IPv4 in its plain form
	Host   string     // in canonical form; "" if there is none
	Roll   uint32     // one of all numbers by chance, the same for all Matches of one connection
}

// L4 is a table of routes for connections and flows, the first of which that fits wins. It is safe for concurrent use.
//
// Routes that ask for a source alone, or for a host alone, cost the same however many there are.
type L4 struct {
	routes   []L4Route
	bySource *bart.Table[[]int32] // of routes that ask for a source alone: for each prefix, those that fit it, in order
	byHost   map[string][]int32   // of routes that ask for a host alone: for each pattern, in order
	general  []int32              // the other routes, in order
}

// maxL4Routes keeps an index within 32 bits, far beyond what anyone writes.
const maxL4Routes = 1 << 24

// NewL4 makes a table of routes, which it keeps. It is an error if one could never match.
func NewL4(routes []L4Route) (*L4, error) {
	if len(routes) > maxL4Routes {
		return nil, fmt.Errorf("%d routes, at most %d", len(routes), maxL4Routes)
	}
	t := &L4{routes: routes, bySource: new(bart.Table[[]int32]), byHost: make(map[string][]int32)}
	for i, r := range routes {
		if err := checkL4(r); err != nil {
			return nil, fmt.Errorf("route %d %q: %w", i, r.Name, err)
		}
		share := r.Percent > 0 && r.Percent < 100
		switch {
		case len(r.Sources) > 0 && len(r.Hosts) == 0 && !share:
			for _, p := range r.Sources {
				t.addSource(p, int32(i))
			}
		case len(r.Hosts) > 0 && len(r.Sources) == 0 && !share:
			for _, h := range r.Hosts {
				t.byHost[h.String()] = appendOnce(t.byHost[h.String()], int32(i))
			}
		default:
			t.general = append(t.general, int32(i))
		}
	}
	t.inherit()
	return t, nil
}

func checkL4(r L4Route) error {
	if r.Upstream == "" {
		return errors.New("upstream is missing")
	}
	if math.IsNaN(r.Percent) || r.Percent < 0 || r.Percent > 100 {
		return fmt.Errorf("percent %v is not from 0 to 100", r.Percent)
	}
	for _, p := range r.Sources {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("source %s is not a plain prefix", p)
		}
	}
	for _, h := range r.Hosts {
		if h.IsZero() {
			return errors.New("host is missing")
		}
	}
	return nil
}

func (t *L4) addSource(p netip.Prefix, route int32) {
	p = p.Masked()
	have, _ := t.bySource.Get(p)
	t.bySource.Insert(p, appendOnce(have, route))
}

// appendOnce is for a route that names a prefix or a host twice.
func appendOnce(list []int32, route int32) []int32 {
	if n := len(list); n > 0 && list[n-1] == route {
		return list
	}
	return append(list, route)
}

// inherit gives each prefix the routes of those that contain it, so that the longest match has all that fit.
func (t *L4) inherit() {
	whole := new(bart.Table[[]int32])
	for p := range t.bySource.AllSorted() { // those that contain a prefix come before it
		var fit []int32
		for _, routes := range t.bySource.Supernets(p) {
			fit = merge(fit, routes)
		}
		whole.Insert(p, fit)
	}
	t.bySource = whole
}

// merge joins two ordered lists without what is in both.
func merge(a, b []int32) []int32 {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	out := make([]int32, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			out, a = append(out, a[0]), a[1:]
		case b[0] < a[0]:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	out = append(out, a...)
	return append(out, b...)
}

// Len is the number of routes.
func (t *L4) Len() int { return len(t.routes) }

// Route is the i-th route. It must not be changed.
func (t *L4) Route(i int) *L4Route { return &t.routes[i] }

// Match is the first route at or behind index from that fits the key; false if there is none. It allocates nothing.
func (t *L4) Match(k L4Key, from int) (index int, ok bool) {
	best := int32(len(t.routes))
	if fit, found := t.bySource.Lookup(k.Source); found {
		best = first(fit, from, best)
	}
	if k.Host != "" && len(t.byHost) > 0 {
		best = t.matchHost(k.Host, from, best)
	}
	for _, i := range t.general {
		if i >= best {
			break
		}
		if int(i) >= from && t.routes[i].fits(k) {
			best = i
			break
		}
	}
	return int(best), int(best) < len(t.routes)
}

// matchHost looks up the patterns that fit a host: itself, a wildcard for each domain that it is below, and "*".
func (t *L4) matchHost(host string, from int, best int32) int32 {
	best = first(t.byHost[host], from, best)
	best = first(t.byHost["*"], from, best)
	var wildcard [256]byte
	for rest := host; len(rest) < len(wildcard); {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			break
		}
		rest = rest[dot:]
		pattern := append(append(wildcard[:0], '*'), rest...)
		best = first(t.byHost[string(pattern)], from, best) // no memory is taken for a key that is looked up
		rest = rest[1:]
	}
	return best
}

// first is the first of an ordered list that is not before from, or best if that is less.
func first(list []int32, from int, best int32) int32 {
	for _, i := range list {
		if int(i) >= from {
			return min(i, best)
		}
	}
	return best
}

// fits says whether a route fits, by asking for each condition.
func (r *L4Route) fits(k L4Key) bool {
	return (len(r.Sources) == 0 || cidr.Contain(r.Sources, k.Source)) && coversHost(r.Hosts, k.Host) && r.takes(k.Roll)
}

func (r *L4Route) takes(roll uint32) bool {
	return r.Percent <= 0 || float64(roll) < r.Percent/100*(1<<32)
}

func coversHost(patterns []hostname.Pattern, host string) bool {
	for _, p := range patterns {
		if host != "" && p.Match(host) {
			return true
		}
	}
	return len(patterns) == 0
}
