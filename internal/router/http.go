// Package router maps conditions to the name of an upstream.
//
// Its tables are immutable and pure: no I/O, no clock, no log. A caller that needs other routes makes another table and
// swaps it in whole, so a match takes no lock. The router knows upstreams by name only.
package router

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"culvert/internal/hostname"
)

// HTTPRoute sends the requests for a host and below a path to an upstream.
type HTTPRoute struct {
	Host hostname.Pattern
	// Path is "" for every path, or a prefix of whole segments such as "/api", without a slash at its end.
	Path string
	// Upstream is the name of an upstream.
	Upstream string
}

// HTTP is a table of routes for HTTP requests, safe for concurrent use.
type HTTP struct {
	exact    map[string]*paths // by canonical host
	below    map[string]*paths // by what hosts end in: ".dev.example.com" for "*.dev.example.com"
	fallback *paths            // for "*"; nil if there is none
}

// paths is what is routed for one host pattern.
type paths struct {
	routes  map[string]HTTPRoute // by Path
	longest int                  // bytes of the longest Path: bounds the work that a stranger's path can cause
}

// NewHTTP makes a table. The order of routes does not matter. It is an error if two are for the same host and path, or if one
// could never match.
func NewHTTP(routes []HTTPRoute) (*HTTP, error) {
	t := &HTTP{exact: map[string]*paths{}, below: map[string]*paths{}}
	for _, r := range routes {
		if err := check(r); err != nil {
			return nil, fmt.Errorf("route %s%s: %w", r.Host, r.Path, err)
		}
		if err := t.of(r.Host).add(r); err != nil {
			return nil, fmt.Errorf("route %s%s: %w", r.Host, r.Path, err)
		}
	}
	return t, nil
}

func check(r HTTPRoute) error {
	switch {
	case r.Host.IsZero():
		return errors.New("host is missing")
	case r.Upstream == "":
		return errors.New("upstream is missing")
	case r.Path == "":
		return nil
	case r.Path[0] != '/':
		return errors.New("path does not begin with '/'")
	case r.Path == "/" || path.Clean(r.Path) != r.Path:
		return errors.New("path has a slash at its end, empty segments or dot segments")
	case strings.ContainsAny(r.Path, "?#"):
		return errors.New("path has a query or a fragment")
	}
	return nil
}

// of is where the routes of a host pattern belong; it makes the place.
func (t *HTTP) of(host hostname.Pattern) *paths {
	name := host.String()
	if name == "*" {
		if t.fallback == nil {
			t.fallback = newPaths()
		}
		return t.fallback
	}
	byHost := t.exact
	if suffix, wild := strings.CutPrefix(name, "*"); wild {
		byHost, name = t.below, suffix
	}
	if byHost[name] == nil {
		byHost[name] = newPaths()
	}
	return byHost[name]
}

func newPaths() *paths { return &paths{routes: map[string]HTTPRoute{}} }

func (p *paths) add(r HTTPRoute) error {
	if other, ok := p.routes[r.Path]; ok {
		return fmt.Errorf("two upstreams for the same host and path: %q and %q", other.Upstream, r.Upstream)
	}
	p.routes[r.Path] = r
	p.longest = max(p.longest, len(r.Path))
	return nil
}

// Match is the route for a request. The host must be in canonical form; the path is the decoded one.
//
// The most specific host with a fitting path wins: the host itself before the longest wildcard before "*", and in a host the
// longest path. "/api" fits /api and /api/x, not /apix. Paths are compared without dot segments, empty segments and the slash
// at the end, so that /x/../api cannot pass for /x; a path that does not begin with a slash ("*", "") fits only "".
//
// It allocates nothing unless the path has dot segments or empty ones.
func (t *HTTP) Match(host, reqPath string) (HTTPRoute, bool) {
	if strings.HasPrefix(reqPath, "/") {
		reqPath = path.Clean(reqPath)
	} else {
		reqPath = ""
	}
	if r, ok := t.exact[host].match(reqPath); ok {
		return r, true
	}
	// Each dot begins a suffix, the longest first, but for a dot at 0: it would make a wildcard fit the bare domain.
	if len(t.below) > 0 {
		for rest := strings.TrimPrefix(host, "."); ; {
			dot := strings.IndexByte(rest, '.')
			if dot < 0 {
				break
			}
			rest = rest[dot:]
			if r, ok := t.below[rest].match(reqPath); ok {
				return r, true
			}
			rest = rest[1:]
		}
	}
	return t.fallback.match(reqPath)
}

// match finds the longest route path that is the clean path or ends before one of its slashes.
func (p *paths) match(clean string) (HTTPRoute, bool) {
	if p == nil {
		return HTTPRoute{}, false
	}
	end := len(clean)
	if end > p.longest {
		end = p.longest
		if clean[end] != '/' {
			end = strings.LastIndexByte(clean[:end], '/')
		}
	}
	for ; end > 0; end = strings.LastIndexByte(clean[:end], '/') {
		if r, ok := p.routes[clean[:end]]; ok {
			return r, true
		}
	}
	r, ok := p.routes[""]
	return r, ok
}
