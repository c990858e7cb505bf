//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What cannot be served is said at once, with the place to mend it, and nothing is left listening.
func TestLBRefusesToStart(t *testing.T) {
	t.Parallel()
	taken := startTCP(t, "taken", "127.0.0.1:0")
	free := freeAddr(t)
	dir := t.TempDir()
	for i, c := range []struct {
		name, text string
		args       []string
		wants      []string
	}{
		{"no file", "", []string{}, []string{"--config"}},
		{"a file that is not there", "", []string{"--config", filepath.Join(dir, "no-such.yaml")}, []string{"no-such.yaml"}},
		{"a folder", "", []string{"--config", dir}, []string{dir}},
		{"an empty file", " ", nil, []string{":1:1:", "empty"}},
		{"nothing to route", "entrypoints: []\nupstreams: []\n", nil, []string{"entrypoints"}},
		{
			"a port that is taken", oneEntrypoint(taken.addr, memberList(free)), nil, []string{"devices", taken.addr, "in use"},
		},
		{"an address of another machine", oneEntrypoint("192.0.2.1:23", memberList(free)), nil, []string{"devices", "192.0.2.1:23"}},
		{
			"two faults at once", "entrypoints:\n  - {name: a, addr: \"127.0.0.1:1\", protocoll: tcp, routes: [{upstream: b}]}\nupstreams:\n  - {name: b, members: [{addresss: \"127.0.0.1:2\"}]}\n",
			nil,
			[]string{"protocoll", "protocol", "addresss", "address", ":2:", ":4:"},
		},
		{"a password in a binary file", "\x00\x01\x02secret\xff", nil, []string{"1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := c.args
			if args == nil {
				args = []string{"--config", write(t, dir, fmt.Sprintf("%d.yaml", i), c.text, 0o600)}
			}
			began := time.Now()
			r := complete(t, program{argv: append([]string{culvert(), "lb"}, args...)})
			if r.code == 0 || r.code > 2 {
				t.Errorf("exit code %d", r.code)
			}
			for _, w := range c.wants {
				if !strings.Contains(r.out, w) {
					t.Errorf("no %q in\n%s", w, r.out)
				}
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
