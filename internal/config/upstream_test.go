package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/client"
	"culvert/internal/tunnel"
)

func TestParseUpstream(t *testing.T) {
	type want struct{ tunnel, scheme, network, address, spec string }
	for _, test := range []struct {
		name  string
		mode  Mode
		spec  string
		ports []uint16
		want  []want
	}{
		{"HTTP for every host", HTTP, "http://127.0.0.1:3000", nil, []want{{"http/*", "http", "tcp", "127.0.0.1:3000", "*=http://127.0.0.1:3000"}}},
		{"a trailing slash", HTTP, "http://127.0.0.1:3000/", nil, []want{{"http/*", "http", "tcp", "127.0.0.1:3000", "*=http://127.0.0.1:3000"}}},
		{"the port of HTTP", HTTP, "http://LocalHost", nil, []want{{"http/*", "http", "tcp", "localhost:80", "*=http://localhost"}}},
		{"the port of HTTPS", HTTP, "https://localhost", nil, []want{{"http/*", "https", "tcp", "localhost:443", "*=https://localhost"}}},
		{"HTTP/2 without TLS", HTTP, "h2c://localhost:50051", nil, []want{{"http/*", "h2c", "tcp", "localhost:50051", "*=h2c://localhost:50051"}}},
		{"by host", HTTP, "App.Example.com.=http://localhost:8000", nil, []want{{"http/app.example.com", "http", "tcp", "localhost:8000", "app.example.com=http://localhost:8000"}}},
		{"by wildcard", Mixed, "*.dev.example.com=http://localhost:8000", nil, []want{{"http/*.dev.example.com", "http", "tcp", "localhost:8000", "*.dev.example.com=http://localhost:8000"}}},
		{"by path", HTTP, "app.example.com/api/=http://localhost:8000", nil, []want{{"http/app.example.com/api", "http", "tcp", "localhost:8000", "app.example.com/api=http://localhost:8000"}}},
		{"every host by path", HTTP, "*/api=http://localhost:8000", nil, []want{{"http/*/api", "http", "tcp", "localhost:8000", "*/api=http://localhost:8000"}}},
		{"IPv6", HTTP, "http://[::1]:3000", nil, []want{{"http/*", "http", "tcp", "[::1]:3000", "*=http://[::1]:3000"}}},
		{"an underscore", HTTP, "http://my_service:3000", nil, []want{{"http/*", "http", "tcp", "my_service:3000", "*=http://my_service:3000"}}},
		{"a socket for a host", HTTP, "app.example.com=unix:/run/app.sock", nil, []want{{"http/app.example.com", "http", "unix", "/run/app.sock", "app.example.com=unix:/run/app.sock"}}},
		{"a socket as a URL", HTTP, "*=unix:///run/app.sock", nil, []want{{"http/*", "http", "unix", "/run/app.sock", "*=unix:/run/app.sock"}}},
		{"a folder", HTTP, "file:/srv/www/", nil, []want{{"http/*", "file", "", "/srv/www", "*=file:/srv/www"}}},
		{"a folder with '='", HTTP, "file:/srv/a=b", nil, []want{{"http/*", "file", "", "/srv/a=b", "*=file:/srv/a=b"}}},
		{"a folder for a host", HTTP, "docs.example.com=file:site", nil, []want{{"http/docs.example.com", "file", "", "site", "docs.example.com=file:site"}}},
		{"TCP on the same port", TCP, "192.168.1.12:22", nil, []want{{"tcp/22", "tcp", "tcp", "192.168.1.12:22", "192.168.1.12:22"}}},
		{"TCP with another port", TCP, "2222=192.168.1.12:22", nil, []want{{"tcp/2222", "tcp", "tcp", "192.168.1.12:22", "2222=192.168.1.12:22"}}},
		{"TCP with the same port said twice", TCP, "22=localhost:22", nil, []want{{"tcp/22", "tcp", "tcp", "localhost:22", "localhost:22"}}},
		{"TCP over IPv6", Mixed, "[2001:db8::1]:22", nil, []want{{"tcp/22", "tcp", "tcp", "[2001:db8::1]:22", "[2001:db8::1]:22"}}},
		{"TCP to a link-local address", TCP, "[fe80::1%eth0]:22", nil, []want{{"tcp/22", "tcp", "tcp", "[fe80::1%eth0]:22", "[fe80::1%eth0]:22"}}},
		{"TCP to a socket", TCP, "5432=unix:/run/pg.sock", nil, []want{{"tcp/5432", "tcp", "unix", "/run/pg.sock", "5432=unix:/run/pg.sock"}}},
		{"a host and ports", TCP, "192.168.1.12", []uint16{80, 443}, []want{
			{"tcp/80", "tcp", "tcp", "192.168.1.12:80", "192.168.1.12:80"},
			{"tcp/443", "tcp", "tcp", "192.168.1.12:443", "192.168.1.12:443"},
		}},
		{"a bare IPv6 host and a port", TCP, "::1", []uint16{80}, []want{{"tcp/80", "tcp", "tcp", "[::1]:80", "[::1]:80"}}},
		{"UDP", Mixed, "udp/51820=10.0.0.5:51820", nil, []want{{"udp/51820", "udp", "udp", "10.0.0.5:51820", "udp/51820=10.0.0.5:51820"}}},
		{"UDP in a client of UDP alone", UDP, "5353=127.0.0.1:53", nil, []want{{"udp/5353", "udp", "udp", "127.0.0.1:53", "udp/5353=127.0.0.1:53"}}},
		{"UDP on the same port", UDP, "[::1]:53", nil, []want{{"udp/53", "udp", "udp", "[::1]:53", "udp/53=[::1]:53"}}},
		{"a host and UDP ports", UDP, "192.168.1.12", []uint16{53, 123}, []want{
			{"udp/53", "udp", "udp", "192.168.1.12:53", "udp/53=192.168.1.12:53"},
			{"udp/123", "udp", "udp", "192.168.1.12:123", "udp/123=192.168.1.12:123"},
		}},
		{"TLS by host", TCP, "tls/API.example.com=localhost:6443", nil, []want{{"tls/api.example.com", "tcp", "tcp", "localhost:6443", "tls/api.example.com=localhost:6443"}}},
		{"TLS below a domain", Mixed, "tls/*.example.com=10.0.0.1:443", nil, []want{{"tls/*.example.com", "tcp", "tcp", "10.0.0.1:443", "tls/*.example.com=10.0.0.1:443"}}},
		{"a private name", TCP, "name/db=10.0.0.5:5432", nil, []want{{"name/db", "tcp", "tcp", "10.0.0.5:5432", "name/db=10.0.0.5:5432"}}},
		{"a private name for a socket", Mixed, "name/db=unix:/run/pg.sock", nil, []want{{"name/db", "tcp", "unix", "/run/pg.sock", "name/db=unix:/run/pg.sock"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			us, err := ParseUpstream(test.mode, test.spec, test.ports)
			if err != nil {
				t.Fatalf("ParseUpstream(%q): %s", test.spec, err)
			}
			var got []want
			for _, u := range us {
				got = append(got, want{u.Tunnel.String(), string(u.Scheme), u.Network, u.Address, u.Spec})
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(want{})); diff != "" {
				t.Errorf("ParseUpstream(%q): want -, got +\n%s", test.spec, diff)
			}
		})
	}
}

func TestParseUpstreamRefuses(t *testing.T) {
	for _, test := range []struct {
		name string
		mode Mode
		spec string
		want string
	}{
		{"a bare address in http client", HTTP, "localhost:3000", `"localhost:3000" has no scheme; write http://localhost:3000`},
		{"a bare host in http client", HTTP, "localhost", `"localhost" has no scheme; write http://localhost:PORT`},
		{"a host before a bare address", HTTP, "a.example.com=localhost:3000", "a host is routed by HTTP; name the scheme: a.example.com=http://localhost:3000"},
		{"TCP in http client", HTTP, "2222=localhost:22", "2222=localhost:22 is not HTTP; use culvert tcp client or culvert client, or HOST=http://… for a website"},
		{"HTTP in tcp client", TCP, "http://localhost:3000", "http://localhost:3000 is HTTP; use culvert http client or culvert client, or HOST:PORT for its bytes"},
		{"HTTP at a port", Mixed, "8080=http://localhost:3000", "port 8080 carries bytes, not HTTP; write 8080=HOST:PORT, or a host before the '='"},
		{"HTTP at a name", Mixed, "name/web=http://localhost:3000", "name web carries bytes, not HTTP; write name/web=HOST:PORT, or a host before the '='"},
		{"a host without a port", TCP, "localhost", `"localhost" has no port; write localhost:PORT, or add --ports`},
		{"a port before a host without one", TCP, "2222=localhost", `"localhost" has no port; write 2222=localhost:PORT`},
		{"a port that is none", TCP, "70000=localhost:22", `"70000" is not a port from 1 to 65535`},
		{"port 0", TCP, "localhost:0", `"0" is not a port from 1 to 65535`},
		{"a port alone", Mixed, "8080", `"8080" is a port alone; write http://127.0.0.1:8080, or 127.0.0.1:8080 for its bytes`},
		{"a port alone in http client", HTTP, "8080", `"8080" is a port alone; write http://127.0.0.1:8080`},
		{"a port alone in tcp client", TCP, "8080", `"8080" is a port alone; write 127.0.0.1:8080`},
		{"a port on both sides of a host", TCP, "localhost:3000:22", `"localhost:3000:22" has more than one port; write PORT=HOST:PORT, as in 2222=127.0.0.1:22`},
		{"a port before host and port, as in ssh", Mixed, "2222:127.0.0.1:22", `"2222:127.0.0.1:22" has more than one port; write PORT=HOST:PORT, as in 2222=127.0.0.1:22`},
		{"two ports of a target", TCP, "2222=localhost:3000:22", `"localhost:3000:22" has more than one port; write PORT=HOST:PORT, as in 2222=127.0.0.1:22`},
		{"an IPv6 address and its port without brackets", TCP, "::1:22", `"::1:22" has no port; write [::1:22]:PORT, or add --ports`},
		{"a scheme on the left", HTTP, "http://app.example.com=http://localhost:3000", "leave out the scheme before the '='; write app.example.com=…"},
		{"an empty port", TCP, "localhost:", `"localhost:" has no port after the colon`},
		{"a path of the target", HTTP, "http://localhost:3000/api", "a target has no path; to route by path write HOST/api=http://localhost:3000"},
		{"a query", HTTP, "http://localhost:3000?x=y", "a target has no path; to route by path write HOST=http://localhost:3000"},
		{"a password", HTTP, "http://user:canary@localhost", "not a URL of a host and a port; write http://HOST:PORT"},
		{"dots in a path", HTTP, "a/../b=http://localhost", `the path "/../b" is not a plain prefix such as /api: no dots, double slashes, '%', '?' or '#'`},
		{"nothing on the left", HTTP, "=http://localhost", "nothing stands before the '='; write a host, a port or name/NAME there, or leave the '=' out"},
		{"an unknown scheme", HTTP, "gopher://localhost", `the scheme "gopher" is unknown; use http, https, h2c, unix: or file:, or HOST:PORT for TCP`},
		{"UDP in tcp client", TCP, "udp/51820=localhost:51820", "udp/51820=localhost:51820 is UDP; use culvert udp client or culvert client"},
		{"UDP to a socket", Mixed, "udp/53=unix:/run/dns.sock", "/run/dns.sock takes no datagrams; write udp/53=HOST:PORT"},
		{"UDP to HTTP", Mixed, "udp/53=http://localhost:80", "UDP port 53 carries bytes, not HTTP; write udp/53=HOST:PORT, or a host before the '='"},
		{"UDP at a port that is none", Mixed, "udp/0=localhost:53", `"0" is not a port from 1 to 65535`},
		{"a UDP URL", UDP, "udp://localhost:53", "write localhost:53 without udp://, and udp/PORT= before it"},
		{"HTTP in udp client", UDP, "http://localhost:3000", "http://localhost:3000 is HTTP; use culvert http client or culvert client, or HOST:PORT for its bytes"},
		{"a port alone in udp client", UDP, "53", `"53" is a port alone; write 127.0.0.1:53`},
		{"TLS without a host", Mixed, "tls/=localhost:6443", "host is empty; write tls/HOST, as in tls/api.example.com, tls/*.example.com or tls/*"},
		{"TLS of a path", Mixed, "tls/api.example.com/v1=localhost:6443", `host "api.example.com/v1": byte '/' is not allowed; write tls/HOST, as in tls/api.example.com, tls/*.example.com or tls/*`},
		{"TLS without a port", Mixed, "tls/api.example.com=localhost", `"localhost" has no port; write tls/api.example.com=localhost:PORT`},
		{"a TCP URL", TCP, "tcp://localhost:22", "write localhost:22 without tcp://"},
		{"a socket alone", Mixed, "unix:/run/app.sock", "a socket needs a host or a port before it: *=unix:/run/app.sock or 8080=unix:/run/app.sock"},
		{"a name that is none", Mixed, "name/a b=localhost:22", `"a b" is not a name; use 1 to 128 letters, digits, '.', '-' and '_'`},
		{"a line break", HTTP, "a\n=http://localhost", "longer than a line, or not text"},
	} {
		t.Run(test.name, func(t *testing.T) {
			us, err := ParseUpstream(test.mode, test.spec, nil)
			if err == nil {
				t.Fatalf("ParseUpstream(%q) = %v, want an error", test.spec, us)
			}
			if err.Error() != test.want {
				t.Errorf("ParseUpstream(%q):\n got %s\nwant %s", test.spec, err, test.want)
			}
		})
	}
}

// What can be read can be offered, and what status shows can be typed again.
func FuzzParseUpstream(f *testing.F) {
	for _, seed := range []string{
		"http://127.0.0.1:3000", "app.example.com/api=http://x", "*.dev.example.com=h2c://[::1]:1", "2222=h:22", "h:22",
		"name/db=h:1", "unix:/x", "*=unix:/x", "file:/x", "[fe80::1%eth0]:22", "udp/1=h:1", "a=b=c", "::1", "ä.example=http://ö",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		us, err := ParseUpstream(Mixed, spec, []uint16{22, 80})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("ParseUpstream(%q): the error has control characters: %q", spec, err)
			}
			return
		}
		for _, u := range us {
			if name, err := tunnel.ParseName(u.Tunnel.String()); err != nil || name != u.Tunnel {
				t.Errorf("%q: tunnel %q cannot be offered: %v", spec, u.Tunnel, err)
			}
			again, err := ParseUpstream(Mixed, u.Spec, nil)
			if err != nil {
				t.Fatalf("%q: its Spec %q cannot be read again: %s", spec, u.Spec, err)
			}
			if diff := cmp.Diff([]client.Upstream{u}, again, cmp.Comparer(func(a, b tunnel.Name) bool { return a == b })); diff != "" {
				t.Errorf("%q: its Spec %q is another upstream:\n%s", spec, u.Spec, diff)
			}
		}
	})
}
