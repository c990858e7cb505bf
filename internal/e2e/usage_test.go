//go:build linux

package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong with a command line is told at once, with exit code 2, before anything is opened.
func TestWrongCommandLines(t *testing.T) {
	dir := t.TempDir()
	token := write(t, dir, "token", "0123456789abcdef0123456789abcdef\n", 0o600)
	cert := write(t, dir, "tls.crt", "not a certificate\n", 0o600)
	server := func(args ...string) []string { return append([]string{"server", "--token-file", token}, args...) }
	client := func(args ...string) []string {
		return append([]string{"client", "--token-file", token, "--url", "wss://127.0.0.1:1"}, args...)
	}
	const up = "--upstream=http://127.0.0.1:3000"
	for _, c := range []struct {
		name string
		args []string
		want []string // what the error names
	}{
		{"an unknown command", []string{"sever"}, []string{"sever", "server"}},
		{"an unknown flag", server("--control-prot", "1"), []string{"--control-prot", "--control-port"}},
		{"an argument too many", server("what"), []string{"what"}},
		{"a port out of range", server("--port", "70000"), []string{"--port", "70000"}},
		{"a port that is none", server("--control-port", "http"), []string{"--control-port", "http"}},
		{"one port for two", server("--port", "8123"), []string{"8123"}},
		{"an address with a port", server("--data-addr", "127.0.0.1:80"), []string{"--data-addr"}},
		{"a range that is none", server("--allow-ips", "10.0.0.0/99"), []string{"--allow-ips", "10.0.0.0/99"}},
		{"ports that are none", server("--allow-ports", "9-1"), []string{"--allow-ports"}},
		{"a missing token file", []string{"server", "--token-file", dir + "/none"}, []string{dir + "/none"}},
		{"a missing file of tokens", []string{"server", "--tokens", dir + "/none"}, []string{dir + "/none"}},
		{"a missing key", server("--auto-tls=false", "--tls-cert", cert), []string{"--tls-key"}},
		{"an unreadable key pair", server("--auto-tls=false", "--tls-cert", cert, "--tls-key", cert), []string{"tls.crt"}},
		{"no TLS at all", server("--auto-tls=false"), []string{"--tls-cert"}},
		{"no upstream", client(), []string{"--upstream"}},
		{"no URL", []string{"client", "--token-file", token, up}, []string{"--url"}},
		{"a URL without scheme", []string{"client", "--token-file", token, up, "--url", "127.0.0.1:8123"}, []string{"--url", "wss://"}},
		{"a URL without TLS", []string{"client", "--token-file", token, up, "--url", "ws://127.0.0.1:8123"}, []string{"--url", "--insecure-plaintext"}},
		{"a URL of a website", []string{"client", "--token-file", token, up, "--url", "https://127.0.0.1:8123"}, []string{"--url", "wss://"}},
		{"an upstream that is none", client("--upstream", "http://"), []string{"--upstream"}},
		{"an upstream's port out of range", client("--upstream", "70000=127.0.0.1:22"), []string{"70000"}},
		{"two upstreams for one host and path", client("--upstream", "a.example.com=http://127.0.0.1:1", "--upstream", "A.example.com=http://127.0.0.1:2"), []string{"a.example.com"}},
		{"two upstreams for one port", client("--upstream", "2222=127.0.0.1:1", "--upstream", "2222=127.0.0.1:2"), []string{"2222"}},
		{"UDP to a Unix socket", client("--upstream", "udp/53=unix:/run/dns.sock"), []string{"udp/53=HOST:PORT"}},
		{"a missing CA", client(up, "--auto-tls=false", "--tls-ca", dir+"/none"), []string{dir + "/none"}},
		{"HTTP to the TCP client", []string{"tcp", "client", "--token-file", token, "--url", "wss://127.0.0.1:1", up}, []string{"--upstream", "http client"}},
		{"a missing folder", []string{"fileserver", "--webroot", dir + "/none"}, []string{dir + "/none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			r := complete(t, program{argv: append([]string{culvert()}, c.args...), env: []string{"STATE_DIRECTORY=" + state}})
			if r.code != 2 {
				t.Errorf("exit code %d, want 2", r.code)
			}
			if r.stdout != "" {
				t.Errorf("standard output: %q", r.stdout)
			}
			for _, want := range c.want {
				if !strings.Contains(r.out, want) {
					t.Errorf("the error does not name %q:\n%s", want, r.out)
				}
			}
			if found, _ := filepath.Glob(state + "*"); len(found) > 0 {
				t.Errorf("it made %v before it refused", found)
			}
		})
	}
}
