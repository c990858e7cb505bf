//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestReloadAndDrainByCommand: an operator far away changes a running server by its control port.
func TestReloadAndDrainByCommand(t *testing.T) {
	one, two := startNamed(t, "one", "127.0.0.1:0", nil), startNamed(t, "two", "127.0.0.1:0", nil)
	addr := freeAddr(t)
	dir := t.TempDir()
	log := dir + "/access.log"
	file := func(entrypoint, member string) string {
		return write(t, dir, "culvert.yaml", `
access_log: `+log+`
entrypoints:
  - {name: devices, `+entrypoint+`: "`+addr+`", routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: "`+member+`"}]}
`, 0o600)
	}
	s := startServer(t, "--config", file("addr", one.addr))
	accepts(t, "tcp", addr)
	goesTo(t, "127.0.0.1", addr, "one", 1)

	file("addr", two.addr)
	if r := s.command(t, "reload"); r.code != 0 || !strings.Contains(r.out, "has read its configuration file again") {
		t.Errorf("reload: code %d\n%s", r.code, r.out)
	}
	goesTo(t, "127.0.0.1", addr, "two", 1)

	file("adr", one.addr)
	if r := s.command(t, "reload"); r.code != 1 || !strings.Contains(r.out, "culvert.yaml:4:") {
		t.Errorf("reload of a wrong file: code %d\n%s", r.code, r.out)
	}
	goesTo(t, "127.0.0.1", addr, "two", 1)

	// As logrotate does it.
	holds := func(path string, lines int) {
		eventually(t, patience, fmt.Sprintf("%s has %d lines", path, lines), func(context.Context) error {
			p, err := os.ReadFile(path)
			if n := strings.Count(string(p), " in=7 "); err == nil && n != lines {
				err = fmt.Errorf("it has:\n%s", p)
			}
			return err
		})
	}
	holds(log, 3)
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	s.signal(t, syscall.SIGHUP)
	holds(log, 0)
	goesTo(t, "127.0.0.1", addr, "two", 2)
	holds(log, 2)
	holds(log+".1", 3)

	c, _ := greetedFrom(t, "127.0.0.1", addr)
	if r := s.command(t, "drain"); r.code != 0 {
		t.Errorf("drain: code %d\n%s", r.code, r.out)
	}
	s.line(t, "going down")
	c.echoes(t, patience) // it may finish
	c.Close()
	if code := s.wait(t); code != 0 {
		t.Errorf("the server ended with code %d", code)
	}
}
