package cli

import (
	"strings"
	"testing"
)

func TestUsageErrors(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct{ line, want string }{
		{"htpp server", `unknown command "htpp" for culvert; did you mean http?`},
		{"http sever --token x", `unknown command "sever" for culvert http; did you mean server?`},
		{"udp server", `unknown command "server" for culvert udp: use culvert server or culvert tcp server, which carry UDP too`},
		{"http server --tls-port 443", "unknown flag --tls-port for culvert http server: it belongs to culvert server, culvert tcp server"},
		{"check --schema x.yaml", "--schema prints the schema of any file; leave x.yaml out, or --schema"},
		{"revoke", `unknown command "revoke" for culvert; did you mean culvert token revoke?`},
		{"frobnicate", `unknown command "frobnicate" for culvert; there are check, client, completion, demo, divert, drain, explain, fileserver, help, http, lb, member, reload, server, status, tcp, token, udp, version`},
		{"http", "culvert http needs a command: client, fileserver, server"},
		{"uplink client --url x", `unknown command "uplink": use culvert client, which carries HTTP and TCP together`},
		{"set server app/web1 state drain", `unknown command "set": use culvert member drain, ready or weight`},
		{"show stat", `unknown command "show": use culvert status, or culvert explain for connections`},
		{"connect x", `unknown command "connect": comes with a later version`},
		{"http server --alow-ips x", "unknown flag --alow-ips for culvert http server; did you mean --allow-ips?"},
		{"http server --control x", "unknown flag --control for culvert http server; did you mean --control-addr?"},
		{"http server --zzzzzz", "unknown flag --zzzzzz for culvert http server"},
		{"http server -x", "unknown flag -x for culvert http server"},
		{"http client -url wss://h", "unknown flag -url: write --url"},
		{"http client --webroot x", "unknown flag --webroot for culvert http client: it belongs to culvert fileserver, culvert http fileserver"},
		{"http client --ports 80", "unknown flag --ports for culvert http client: it belongs to culvert client, culvert tcp client, culvert token new, culvert udp client"},
		{"http client --token", "--token needs a value: --token TOKEN"},
		{"http server extra", `unexpected argument "extra": culvert http server takes flags only`},
		{"server culvert.yaml", `unexpected argument "culvert.yaml": give --config culvert.yaml`},
		{"http server --auto-tls false", `unexpected "false": write a switch with '=', as in --auto-tls=false`},
		{"client --remote x", "--remote: here it is --url"},
		{"client --connect x", "--connect: here it is --url"},
		{"client --license x", "--license: Culvert needs no licence; leave it out"},
		{"client --license-file x", "--license-file: Culvert needs no licence; leave it out"},
		{"client --print-token", "--print-token: the token is yours already; leave it out"},
		{"tcp client --tcp-ports 80", "--tcp-ports: here it is --ports"},
		{"tcp server --tcp-ports 80", "--tcp-ports: clients say which ports to open; give --ports to culvert tcp client, and --allow-ports here to narrow them"},
		{"server --common-name x", "--common-name: here it is --auto-tls-san"},
		{"server --disable-transport-wrapping", "--disable-transport-wrapping: Culvert changes no CORS headers; leave it out"},
		{"server --letsencrypt-domain x", "--letsencrypt-domain: comes with a later version"},
		{"server --debug", "--debug: here it is --log-level debug"},
		{"status --json", "--json: here it is --output"},
		{"server --auto-tls-legacy", "--auto-tls-legacy: Culvert always verifies the server's CA with the token; leave it out"},
		{"token revoke --tokens x", "give the id or the name of one token, as culvert token list shows it"},
		{"completion fsh", `unknown command "fsh" for culvert completion; did you mean fish?`},
	} {
		code := w.run(t, test.line)
		first, rest, _ := strings.Cut(w.stderr.String(), "\n")
		if code != 2 || first != "culvert: "+test.want {
			t.Errorf("culvert %s: code %d\n got %s\nwant culvert: %s", test.line, code, first, test.want)
		}
		if !strings.HasPrefix(rest, "See: culvert") || !strings.HasSuffix(rest, " --help\n") {
			t.Errorf("culvert %s: no hint after the error: %q", test.line, rest)
		}
		if w.stdout.Len() > 0 || w.ran() != "" {
			t.Errorf("culvert %s: ran %q, standard output %q", test.line, w.ran(), &w.stdout)
		}
	}
}

func TestConfigurationErrorsAreToldTogether(t *testing.T) {
	w := newWorld(t)
	w.env["CULVERT_HTTP_SERVER_CONTROL_PORT"] = "x"
	code := w.run(t, "http server --port 70000 --token-file DIR/none --data-addr=127.0.0.1:80")
	want := `culvert: CULVERT_HTTP_SERVER_CONTROL_PORT: "x" is not a port; give a number from 0 (any free port) to 65535
culvert: --data-addr: takes a host alone, not port 80; leave the port out: it is --port
culvert: --port: "70000" is not a port; give a number from 0 (any free port) to 65535
culvert: --token-file: read secret: open DIR/none: no such file or directory; check the path
See: culvert http server --help
`
	if got := strings.ReplaceAll(w.stderr.String(), w.dir, "DIR"); code != 2 || got != want {
		t.Errorf("code %d\n%s", code, got)
	}
}
