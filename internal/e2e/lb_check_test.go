//go:build linux

package e2e

import (
	"strings"
	"testing"
)

// The seed's two configurations in our format, with the faults that they have there (section 7.10): HAProxy's names a
// backend that does not exist, nginx's has a misspelt directive. The check names the line and what was meant.
func TestCheckFindsTheFaultsOfTheSeed(t *testing.T) {
	t.Parallel()
	haproxy := `# HAProxy's example
entrypoints:
  - name: my_proxy_server
    addr: 127.0.0.1:2323
    routes:
      - name: test_sites
        match: {source: [192.168.100.1, 192.168.100.2]}
        upstream: my_test_server
      - upstream: my_app_servers
upstreams:
  - name: my_app_servers
    balance: round_robin
    members:
      - {name: app1, address: 192.168.137.101:23}
      - {name: app2, address: 192.168.137.102:23}
  - name: my_test_servers
    members: [{name: app1, address: 192.168.137.103:23}]
`
	nginx := `# nginx's example
entrypoints:
  - name: telnet
    addr: 127.0.0.1:2323
    routes:
      - match: {source: 192.168.137.140}
        proxy pass: test_backend
      - upstream: prod_backend
upstreams:
  - {name: prod_backend, members: [{address: 192.168.137.129:23}]}
  - {name: test_backend, members: [{address: 192.168.137.131:23}]}
`
	for _, c := range []struct {
		name, text, good string
		wants            []string
	}{
		{"haproxy", haproxy, strings.Replace(haproxy, "my_test_server\n", "my_test_servers\n", 1), []string{":8:", "my_test_server", "my_test_servers"}},
		{"nginx", nginx, strings.Replace(nginx, "proxy pass:", "upstream:", 1), []string{":7:", "proxy pass", "upstream"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			bad := write(t, dir, "bad.yaml", c.text, 0o600)
			r := complete(t, program{argv: []string{culvert(), "check", bad}})
			if r.code == 0 {
				t.Errorf("the check succeeds:\n%s", r.out)
			}
			for _, w := range c.wants {
				if !strings.Contains(r.out, w) {
					t.Errorf("the check does not say %q:\n%s", w, r.out)
				}
			}
			if !strings.Contains(r.out, "bad.yaml") {
				t.Errorf("the check does not name the file:\n%s", r.out)
			}
			t.Logf("%s", r.out)
			// The program that would run refuses it with the same words, and needs no moment for it.
			run := complete(t, program{argv: []string{culvert(), "lb", "--config", bad}})
			if run.code == 0 || !strings.Contains(run.out, c.wants[0]) {
				t.Errorf("culvert lb: exit code %d\n%s", run.code, run.out)
			}
			if r := complete(t, program{argv: []string{culvert(), "check", write(t, dir, "good.yaml", c.good, 0o600)}}); r.code != 0 {
				t.Errorf("with the fault mended: exit code %d\n%s", r.code, r.out)
			}
		})
	}
}
