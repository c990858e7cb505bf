//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

// TestMembersByCommand: an operator takes a member out for its maintenance and brings it back, through a reload, without curl.
func TestMembersByCommand(t *testing.T) {
	t.Parallel()
	a, c := startTCP(t, "a", "127.0.0.1:0"), startTCP(t, "c", "127.0.0.1:0")
	addr := freeAddr(t)
	text := oneEntrypoint(addr, fmt.Sprintf("[{address: %q, name: one}, {address: %q, name: two}]", a.addr, c.addr))
	b := startLB(t, text)
	does := func(words, says string) {
		t.Helper()
		if r := b.command(t, words); r.code != 0 || !strings.Contains(r.out, says) {
			t.Errorf("culvert %s: code %d, want it to say %q\n%s", words, r.code, says, r.out)
		}
	}
	goes := func(visitors, toA int) {
		t.Helper()
		if n := tally(whoAnswerEach(t, visitors, "tcp", "", addr)); n["a"] != toA {
			t.Errorf("%d connections went %v, want %d to a", visitors, n, toA)
		}
	}
	goes(10, 5)
	does("member drain app/one", "app/one gets no new connections")
	goes(10, 0)
	does("member list app", "one    draining 1")
	b.reload(t, text)
	goes(10, 0)
	does("member ready app/one", "app/one gets new connections again")
	does("member weight app/one 3", "app/one has the weight 3")
	goes(20, 15)
	b.reload(t, text)
	goes(20, 15)
	does("status", "one    up    3")
	for words, says := range map[string]string{
		"member drain app/three": `culvert: upstream app has no member "three": it has one, two`,
		"member drain apps/one":  `culvert: no upstream "apps"; there is app`,
		"member list apps":       `culvert: the server has no upstream "apps"; it has app`,
	} {
		if r := b.command(t, words); r.code != 1 || r.stdout != "" || strings.TrimSpace(r.out) != says {
			t.Errorf("culvert %s: code %d, want %q\n%s", words, r.code, says, r.out)
		}
	}
	b.stop(t)
	b.again(t)
	goes(10, 5) // what is set by hand ends with the process
}

// What may be wrong between an operator and a server is one line that says what to do, and code 1, whatever was asked.
func TestWhatIsWrongOnTheWayToAServerIsOneLine(t *testing.T) {
	t.Parallel()
	tokens := filepath.Join(t.TempDir(), "tokens.yaml")
	scoped := func(name string, flags ...string) []string {
		t.Helper()
		r := complete(t, program{argv: append([]string{culvert(), "token", "new", "--tokens", tokens, "--name", name}, flags...)})
		if r.code != 0 {
			t.Fatalf("token new: code %d\n%s", r.code, r.out)
		}
		return []string{"--token-file", write(t, filepath.Dir(tokens), name, strings.TrimSpace(r.stdout)+"\n", 0o600)}
	}
	port, reader, admin := scoped("port", "--ports", "2222"), scoped("reader", "--read"), scoped("admin", "--admin")
	app := startTCP(t, "a", "127.0.0.1:0")
	s, other := startLB(t, oneEntrypoint(freeAddr(t), memberList(app.addr)), "tokens: "+tokens), startServer(t)
	chatty := startNamed(t, "SSH-2.0-OpenSSH_9.9", "127.0.0.1:0", nil)
	website := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(website.Close)
	const (
		status, explain, reload = "status", "explain --last 1", "reload"
		list, drain, diverts    = "member list", "member drain app/one", "divert list"
		divert                  = "divert --entrypoint devices --source 192.0.2.7 --to 127.0.0.1:1 --for 1m"
	)
	token, at := []string{"--token-file", s.state + "/token"}, func(addr string) string { return "wss://" + addr }
	for _, tt := range []struct {
		name, url string
		flags     []string
		commands  []string
		want      string
	}{
		{"a server that is down", at(freeAddr(t)), token, []string{status, explain, reload, list, drain, diverts, divert}, "refused the connection: is the server running, and is the port right? the control port is 8123 by default"},
		{"a wrong token", at(s.control), []string{"--token-file", other.state + "/token"}, []string{status, explain, reload, list, drain, diverts, divert}, "could not prove that it knows this token: the token is wrong"},
		{"the CA of another server", at(s.control), append([]string{"--auto-tls=false", "--tls-ca", other.state + "/ca.crt"}, token...), []string{status, explain, reload, list, divert}, "that file is another server's"},
		{"no CA", at(s.control), append([]string{"--auto-tls=false"}, token...), []string{status, reload, divert}, "if the server made it, as by default, leave out --auto-tls=false"},
		{"a port of HTTP", at(website.Listener.Addr().String()), token, []string{status, explain, reload, drain, divert}, "speaks plain HTTP: is it the data port? the control port is 8123 by default"},
		{"a service of TCP", at(chatty.addr), token, []string{status, explain, reload, drain, divert}, "does not speak TLS: mind the port"},
		{"plain HTTP to a port of TLS", "ws://" + s.control, append([]string{"--insecure-plaintext"}, token...), []string{status, reload, divert}, "wss://"},
		{"a token for a port", at(s.control), port, []string{status, explain, list, diverts}, "lets this token do other things, but not read: make one with --read"},
		{"a token that may read", at(s.control), reader, []string{reload, drain}, "lets this token do other things, but not administer: make one with --admin"},
		{"a token that may administer", at(s.control), admin, []string{status, list}, "lets this token do other things, but not read: make one with --read"},
		{"no grant of the divert", at(s.control), reader, []string{divert}, "the token may not divert traffic of entrypoint devices: it is granted no diverts; a token that may is made with culvert token new --divert"},
	} {
		for _, command := range tt.commands {
			t.Run(tt.name+": "+command, func(t *testing.T) {
				argv := append([]string{culvert()}, strings.Fields(command)...)
				r := complete(t, program{argv: append(append(argv, "--url", tt.url), tt.flags...)})
				if r.code != 1 || r.stdout != "" || strings.Count(r.out, "\n") != 1 || !strings.HasPrefix(r.out, "culvert: ") || !strings.Contains(r.out, tt.want) {
					t.Errorf("code %d, want 1 and one line that says %q\n%s", r.code, tt.want, r.out)
				}
			})
		}
	}
}

// TestAMemberIsEmptied: before its maintenance, a member is waited for, and what does not end by itself is ended.
func TestAMemberIsEmptied(t *testing.T) {
	t.Parallel()
	a, c := startTCP(t, "a", "127.0.0.1:0"), startTCP(t, "c", "127.0.0.1:0")
	addr := freeAddr(t)
	b := startLB(t, oneEntrypoint(addr, fmt.Sprintf("[{address: %q, name: one}, {address: %q, name: two}]", a.addr, c.addr)))
	talks := map[string]*talk{}
	for len(talks) < 2 {
		k := openTalk(t, "tcp", "", addr)
		talks[k.mustSay(t, "where").by] = k
	}
	does := func(words string, code int, says string) {
		t.Helper()
		if r := b.command(t, words); r.code != code || !strings.Contains(r.out, says) {
			t.Errorf("culvert %s: code %d, want %d and that it says %q\n%s", words, r.code, code, says, r.out)
		}
	}
	does("member drain app/one --wait 100ms", 1, "app/one has 1 connection open after 100ms: --close would end them")
	talks["a"].mustSay(t, "still")
	does("member drain app/one --wait 100ms --close", 0, "Its open connections are ended.")
	if _, err := talks["a"].says("there?", patience); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of the member: %v, want a reset", err)
	}
	talks["c"].mustSay(t, "still")
	does("member ready app/one", 0, "new connections again")

	// The last one ends by itself, while it is waited for; who waits no more is told that the member still drains.
	gives := start(t, program{argv: []string{culvert(), "member", "drain", "app/two", "--wait", "1m", "--url", "wss://" + b.control, "--token-file", b.state + "/token"}})
	gives.line(t, "app/two gets no new connections")
	gives.signal(t, syscall.SIGINT)
	if code := gives.wait(t); code != 130 || !strings.Contains(gives.out.String(), "culvert: interrupted: app/two still gets no new connections, until culvert member ready") {
		t.Errorf("interrupted: code %d\n%s", code, gives.out.String())
	}
	waits := start(t, program{argv: []string{culvert(), "member", "drain", "app/two", "--wait", "1m", "--url", "wss://" + b.control, "--token-file", b.state + "/token"}})
	waits.line(t, "app/two gets no new connections")
	talks["c"].Close()
	if code := waits.wait(t); code != 0 || !strings.Contains(waits.out.String(), "It has no open connections.") {
		t.Errorf("code %d\n%s", code, waits.out.String())
	}
	does("member drain app/one --close", 0, "Its open connections are ended.") // of nobody
}
