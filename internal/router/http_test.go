package router

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"culvert/internal/hostname"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMatch(t *testing.T) {
	table := mustTable(t,
		"*", "*/health", "*.example.com", "*.dev.example.com/api", "app.dev.example.com", "app.dev.example.com/api",
		"app.dev.example.com/api/v2", "api.example.org/v1", "*.example.org/v1/x", "::1", "192.0.2.1/a")
	tests := []struct {
		name, host, path, want string // want "" means no route
	}{
		{"exact host", "app.dev.example.com", "/", "app.dev.example.com"},
		{"path prefix", "app.dev.example.com", "/api/x", "app.dev.example.com/api"},
		{"path itself", "app.dev.example.com", "/api", "app.dev.example.com/api"},
		{"path with a slash at its end", "app.dev.example.com", "/api/", "app.dev.example.com/api"},
		{"longest path", "app.dev.example.com", "/api/v2/y", "app.dev.example.com/api/v2"},
		{"path that only begins alike", "app.dev.example.com", "/apix", "app.dev.example.com"},
		{"longer path that only begins alike", "app.dev.example.com", "/api/v2x", "app.dev.example.com/api"},
		{"path is case sensitive", "app.dev.example.com", "/API", "app.dev.example.com"},
		{"longest wildcard", "x.dev.example.com", "/api", "*.dev.example.com/api"},
		{"wildcard of several labels", "a.b.dev.example.com", "/api", "*.dev.example.com/api"},
		{"falls through to the shorter wildcard", "x.dev.example.com", "/", "*.example.com"},
		{"wildcard is not the bare domain", "example.com", "/", "*"},
		{"wildcard keeps to labels", "badexample.com", "/", "*"},
		{"a domain is a host below its parent", "dev.example.com", "/api", "*.example.com"},
		{"any host", "elsewhere.test", "/", "*"},
		{"any host by path", "elsewhere.test", "/health", "*/health"},
		{"falls through past every host", "api.example.org", "/v2", "*"},
		{"falls through to a path of any host", "api.example.org", "/health", "*/health"},
		{"less specific host with a longer path loses", "api.example.org", "/v1/x", "api.example.org/v1"},
		{"IPv6", "::1", "/", "::1"},
		{"IPv4", "192.0.2.1", "/a/b", "192.0.2.1/a"},
		{"dot segments leave the prefix", "app.dev.example.com", "/api/../admin", "app.dev.example.com"},
		{"dot segments enter the prefix", "app.dev.example.com", "/x/../api", "app.dev.example.com/api"},
		{"dot segments above the root", "app.dev.example.com", "/../../api", "app.dev.example.com/api"},
		{"dot segment at the end", "app.dev.example.com", "/api/v2/..", "app.dev.example.com/api"},
		{"single dots", "app.dev.example.com", "/./api/./v2", "app.dev.example.com/api/v2"},
		{"empty segments", "app.dev.example.com", "//api//v2", "app.dev.example.com/api/v2"},
		{"three dots are a name", "app.dev.example.com", "/api/.../x", "app.dev.example.com/api"},
		{"no path", "app.dev.example.com", "", "app.dev.example.com"},
		{"asterisk form", "app.dev.example.com", "*", "app.dev.example.com"},
		{"path without its slash", "app.dev.example.com", "api", "app.dev.example.com"},
		{"no host", "", "/", "*"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := table.Match(tt.host, tt.path)
			if name := got.Host.String() + got.Path; name != tt.want || !ok {
				t.Errorf("Match(%q, %q) = %q, %v; want %q", tt.host, tt.path, name, ok, tt.want)
			}
			if want := "to " + tt.want; got.Upstream != want {
				t.Errorf("Match(%q, %q) goes to %q, want %q", tt.host, tt.path, got.Upstream, want)
			}
		})
	}
}

func TestMatchFindsNothing(t *testing.T) {
	tests := []struct {
		name       string
		routes     []string
		host, path string
	}{
		{"in an empty table", nil, "app.example.com", "/"},
		{"for a host without a route", []string{"app.example.com"}, "b.example.com", "/"},
		{"for the bare domain of a wildcard", []string{"*.example.com"}, "example.com", "/"},
		{"for a path outside the only one", []string{"app.example.com/api"}, "app.example.com", "/apix"},
		{"for the parent of the only path", []string{"app.example.com/api/v1"}, "app.example.com", "/api"},
		{"for the root of the only path", []string{"app.example.com/api"}, "app.example.com", "/"},
		{"for no path", []string{"app.example.com/api"}, "app.example.com", ""},
		{"for no host", []string{"app.example.com", "*.example.com"}, "", "/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := mustTable(t, tt.routes...).Match(tt.host, tt.path); ok || got != (HTTPRoute{}) {
				t.Errorf("Match(%q, %q) = %v, %v; want no route", tt.host, tt.path, got, ok)
			}
		})
	}
}

func TestNewHTTPRefuses(t *testing.T) {
	host := route(t, "app.example.com").Host
	tests := []struct {
		name   string
		routes []HTTPRoute
		want   string
	}{
		{
			"the same host and path twice",
			[]HTTPRoute{{host, "/api", "a"}, {host, "", "b"}, {host, "/api", "c"}},
			`route app.example.com/api: two upstreams for the same host and path: "a" and "c"`,
		},
		{
			"every host twice",
			[]HTTPRoute{route(t, "*"), route(t, "*")},
			`route *: two upstreams for the same host and path: "to *" and "to *"`,
		},
		{"no host", []HTTPRoute{{Upstream: "a"}}, "route : host is missing"},
		{"no upstream", []HTTPRoute{{Host: host}}, "route app.example.com: upstream is missing"},
		{"path without its slash", []HTTPRoute{{host, "api", "a"}}, "route app.example.comapi: path does not begin with '/'"},
		{
			"slash at the end",
			[]HTTPRoute{{host, "/api/", "a"}},
			"route app.example.com/api/: path has a slash at its end, empty segments or dot segments",
		},
		{
			"only a slash",
			[]HTTPRoute{{host, "/", "a"}},
			"route app.example.com/: path has a slash at its end, empty segments or dot segments",
		},
		{
			"dot segments",
			[]HTTPRoute{{host, "/a/../b", "a"}},
			"route app.example.com/a/../b: path has a slash at its end, empty segments or dot segments",
		},
		{"query", []HTTPRoute{{host, "/a?b", "a"}}, "route app.example.com/a?b: path has a query or a fragment"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, err := NewHTTP(tt.routes)
			if err == nil || table != nil {
				t.Fatalf("NewHTTP = %v, %v; want only an error", table, err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

// The table finds what a search of all routes finds that follows the words of Match one by one.
func TestMatchIsTheMostSpecificRoute(t *testing.T) {
	host := rapid.StringMatching(`[ab](\.[ab]){0,3}`)
	prefix := rapid.StringMatching(`(/[ab]{1,2}){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 12).Draw(t, "routes")
		seen, routes := map[string]bool{}, []HTTPRoute(nil)
		for range n {
			name := rapid.SampledFrom([]string{"", "*."}).Draw(t, "wildcard") + host.Draw(t, "host")
			if rapid.IntRange(0, 5).Draw(t, "any") == 0 {
				name = "*"
			}
			if name += prefix.Draw(t, "prefix"); !seen[name] {
				seen[name] = true
				routes = append(routes, route(t, name))
			}
		}
		table, err := NewHTTP(routes)
		if err != nil {
			t.Fatal(err)
		}
		h := host.Draw(t, "request host")
		p := rapid.StringMatching(`(/([ab]{1,3}|\.|\.\.)?){0,5}`).Draw(t, "request path")
		got, ok := table.Match(h, p)
		want, wantOK := search(routes, h, p)
		if got != want || ok != wantOK {
			t.Fatalf("Match(%q, %q) in %v = %v, %v; want %v, %v", h, p, routes, got, ok, want, wantOK)
		}
	})
}

func search(routes []HTTPRoute, host, reqPath string) (best HTTPRoute, ok bool) {
	reqPath = path.Clean("/" + reqPath)
	for _, r := range routes {
		if !r.Host.Match(host) || r.Path != "" && reqPath != r.Path && !strings.HasPrefix(reqPath, r.Path+"/") {
			continue
		}
		// One pattern that covers another and is not equal to it is the less specific one.
		if !ok || r.Host == best.Host && len(r.Path) > len(best.Path) || r.Host != best.Host && best.Host.Covers(r.Host) {
			best, ok = r, true
		}
	}
	return best, ok
}

// A stranger chooses host and path: a long path costs no more than its length, whatever the table holds.
func FuzzMatch(f *testing.F) {
	f.Add("app.dev.example.com", "/api/../x")
	f.Add("..", "//")
	f.Add("", "/api/v2/../../..")
	f.Add("a.b.c.example.com", strings.Repeat("/a", 300))
	table := mustTable(f, "*/health", "*.example.com", "*.dev.example.com/api", "app.dev.example.com/api/v2")
	f.Fuzz(func(t *testing.T, host, reqPath string) {
		r, ok := table.Match(host, reqPath)
		if !ok {
			return
		}
		if !r.Host.Match(host) {
			t.Fatalf("Match(%q, %q) = %v, whose host does not match", host, reqPath, r)
		}
		if clean := path.Clean(reqPath); r.Path != "" && clean != r.Path && !strings.HasPrefix(clean, r.Path+"/") {
			t.Fatalf("Match(%q, %q) = %v, whose path does not match", host, reqPath, r)
		}
	})
}

func TestMatchAllocatesNothing(t *testing.T) {
	table := big(t)
	for _, r := range requests {
		if n := testing.AllocsPerRun(100, func() { table.Match(r[0], r[1]) }); n != 0 {
			t.Errorf("Match(%q, %q) makes %v allocations, want 0", r[0], r[1], n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	table := big(b)
	for _, r := range requests {
		b.Run(r[0]+r[1], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Match(r[0], r[1])
			}
		})
	}
}

var requests = [][2]string{
	{"host500.example.com", "/"},
	{"host500.example.com", "/api/v1/users/42/"},
	{"a.b.wild500.example.com", "/index.html"},
	{"elsewhere.test", "/a/b/c/d/e/f"},
}

// big is a table of a thousand hosts, with paths, and a thousand wildcards.
func big(t testing.TB) *HTTP {
	names := []string{"*"}
	for i := range 1000 {
		h := fmt.Sprintf("host%d.example.com", i)
		names = append(names, h, h+"/api", h+"/api/v1", fmt.Sprintf("*.wild%d.example.com", i))
	}
	return mustTable(t, names...)
}

func mustTable(t testing.TB, names ...string) *HTTP {
	t.Helper()
	routes := make([]HTTPRoute, 0, len(names))
	for _, name := range names {
		routes = append(routes, route(t, name))
	}
	table, err := NewHTTP(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// route makes a route of "host/path" to the upstream "to host/path".
func route(t interface{ Fatalf(string, ...any) }, name string) HTTPRoute {
	host, p := name, ""
	if i := strings.IndexByte(name, '/'); i >= 0 {
		host, p = name[:i], name[i:]
	}
	pattern, err := hostname.ParsePattern(host)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return HTTPRoute{pattern, p, "to " + name}
}
