package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"culvert/internal/config/file"
	"culvert/internal/hostname"
	"culvert/internal/tunnel"
)

// routes checks and completes the routes of an entrypoint.
func (c *checker) routes(e *Entrypoint, path string) {
	names := namer{map[string]bool{}, map[string]int{}}
	for i, r := range e.Routes {
		at := file.Item(path+".routes", i)
		if r.Name == "" {
			continue
		}
		if own := r.Name == r.Upstream; (own || c.name(at, r.Name)) && names.taken[r.Name] {
			c.fault(at+".name", "give another", "%q is the name of another route of %s", r.Name, e.Name)
		}
		names.taken[r.Name] = true
	}
	var before shadow
	last := -1 // the first route that takes everyone and keeps them
	for i := range e.Routes {
		r := &e.Routes[i]
		at := file.Item(path+".routes", i)
		c.target(e, r, at)
		if r.Name == "" {
			r.Name = names.name(r.Upstream)
		}
		c.match(e, r, at)
		if r.OnDown == Fallback && i == len(e.Routes)-1 {
			c.fault(at+".on_down", "add a route below, or write on_down: fail", "there is no route below to fall back to")
		}
		if last >= 0 {
			line := c.line(file.Item(path+".routes", last))
			c.fault(at, fmt.Sprintf("put it above the route in line %d, or give that one a match", line),
				"is never reached: the route %q above it, in line %d, takes everyone", e.Routes[last].Name, line)
			continue
		}
		if by := before.covers(r.Match); by >= 0 {
			c.warn(at+".match", "put it above that one, or leave it out",
				"matches nobody who gets this far: the route %q in line %d takes them",
				e.Routes[by].Name, c.line(file.Item(path+".routes", by)))
		}
		if r.OnDown == Fail {
			if r.Match.Everyone() {
				last = i
			}
			before.add(r.Match, i)
		}
	}
}

// namer names routes that have no name of their own: after their upstream, with a number if another has that name.
type namer struct {
	taken map[string]bool
	last  map[string]int // the number tried last, by upstream
}

func (n *namer) name(upstream string) string {
	name := upstream
	for n.taken[name] {
		n.last[upstream] = max(n.last[upstream], 1) + 1
		name = fmt.Sprintf("%s-%d", upstream, n.last[upstream])
	}
	n.taken[name] = true
	return name
}

// target checks where a route goes.
func (c *checker) target(e *Entrypoint, r *Route, at string) {
	at += ".upstream"
	if strings.Contains(r.Upstream, "/") {
		n, err := parseTunnel(r.Upstream)
		switch {
		case err != nil:
			fault, remedy, _ := strings.Cut(err.Error(), "; ")
			c.fault(at, remedy, "%s", fault)
		default:
			c.carries(&Member{Tunnel: n}, at, at, use{e.Protocol, e.Mode, "entrypoint " + e.Name})
		}
		return
	}
	if _, ok := c.upstreams[r.Upstream]; !ok {
		if c.nameless() {
			return // it may be that one
		}
		c.fault(at, suggest(r.Upstream, c.upstreamNames()), "there is no upstream %q", r.Upstream)
		return
	}
	c.used[r.Upstream] = append(c.used[r.Upstream], use{e.Protocol, e.Mode, "entrypoint " + e.Name})
}

// nameless says whether the name of an upstream could not be read.
func (c *checker) nameless() bool {
	if c.unread["upstreams"] || c.unread[""] && len(c.plan.Upstreams) == 0 {
		return true
	}
	return slices.ContainsFunc(c.plan.Upstreams, func(u Upstream) bool { return u.Name == "" })
}

func (c *checker) upstreamNames() []string {
	names := make([]string, 0, len(c.plan.Upstreams))
	for _, u := range c.plan.Upstreams {
		if !slices.Contains(names, u.Name) {
			names = append(names, u.Name)
		}
	}
	return names
}

// match checks the conditions of a route.
func (c *checker) match(e *Entrypoint, r *Route, at string) {
	at += ".match"
	if len(r.Match.Host) > 0 && e.Protocol != TLS && e.Protocol != "" { // "": what was given is no protocol, which is said
		c.fault(at+".host", "write protocol: tls, or match by source",
			"the host is known only where visitors speak TLS, and this is protocol: %s", e.Protocol)
	}
	if c.given(at) && len(r.Match.Source) == 0 && len(r.Match.Host) == 0 && !c.given(at+".percent") {
		c.fault(at, "add source, host or percent, or leave match out", "has no condition")
	}
}

// shadow knows whom the routes so far have taken for good. It answers by prefix and pattern in a time that does not grow
// with the number of routes.
type shadow struct {
	taken map[taken]int // the first route that took them
}

// taken is one source and one host of a route; "" and the zero prefix stand for all of them.
type taken struct {
	source netip.Prefix
	host   string
}

func (s *shadow) add(m Match, route int) {
	if m.Percent != 0 && m.Percent != 100 {
		return
	}
	if s.taken == nil {
		s.taken = map[taken]int{}
	}
	for source, host := range each(m) {
		key := taken{source, host.String()}
		if _, ok := s.taken[key]; !ok {
			s.taken[key] = route
		}
	}
}

// covers is a route that has taken some of those that m is for, if the routes so far have taken all of them; else -1.
func (s *shadow) covers(m Match) int {
	by := -1
	for source, host := range each(m) {
		if by = s.covered(source, host); by < 0 {
			return -1
		}
	}
	return by
}

func (s *shadow) covered(source netip.Prefix, host hostname.Pattern) int {
	for _, h := range wider(host.String()) {
		if route, ok := s.taken[taken{netip.Prefix{}, h}]; ok {
			return route
		}
		for bits := source.Bits(); bits >= 0; bits-- {
			p, err := source.Addr().Prefix(bits)
			if err != nil {
				break
			}
			if route, ok := s.taken[taken{p, h}]; ok {
				return route
			}
		}
	}
	return -1
}

// each yields every pair of a source and a host of a match; a condition that is left out yields its zero value.
func each(m Match) func(yield func(netip.Prefix, hostname.Pattern) bool) {
	return func(yield func(netip.Prefix, hostname.Pattern) bool) {
		sources, hosts := m.Source, m.Host
		if len(sources) == 0 {
			sources = []netip.Prefix{{}}
		}
		if len(hosts) == 0 {
			hosts = []hostname.Pattern{{}}
		}
		for _, s := range sources {
			for _, h := range hosts {
				if !yield(s, h) {
					return
				}
			}
		}
	}
}

// wider are the patterns that cover a host pattern, itself first, and "", which stands for visitors without a host too.
func wider(host string) []string {
	if host == "" {
		return []string{""}
	}
	all := []string{host}
	rest := strings.TrimPrefix(host, "*.")
	for {
		_, below, ok := strings.Cut(rest, ".")
		if !ok {
			return append(all, "*", "")
		}
		all = append(all, "*."+below)
		rest = below
	}
}

// Tunnels are the tunnels that the plan names, in routes and as members, each once.
func (p Plan) Tunnels() []tunnel.Name {
	var names []tunnel.Name
	add := func(n tunnel.Name) {
		if n != (tunnel.Name{}) && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, e := range p.Entrypoints {
		for _, r := range e.Routes {
			if n, ok := r.Tunnel(); ok {
				add(n)
			}
		}
	}
	for _, u := range p.Upstreams {
		for _, m := range u.Members {
			add(m.Tunnel)
		}
	}
	return names
}
