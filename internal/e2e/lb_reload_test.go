//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// routesFile is a file of so many routes by source before the last one, and as many upstreams as round says.
func routesFile(addr, udp string, routes, round int, app, other *member, datagrams *member) string {
	var b strings.Builder
	fmt.Fprintf(&b, "entrypoints:\n  - name: datagrams\n    protocol: udp\n    addr: %q\n    routes: [{upstream: datagrams}]\n", udp)
	fmt.Fprintf(&b, "  - name: devices\n    addr: %q\n    routes:\n", addr)
	for i := range routes {
		fmt.Fprintf(&b, "      - {name: r%[1]d, match: {source: [10.%[2]d.%[3]d.0/24, \"2001:db8:%[1]x::/48\"]}, upstream: u%[4]d}\n", i, i>>8&255, i&255, round%3*10+i%10)
	}
	fmt.Fprintf(&b, "      - {match: {source: [127.0.0.140]}, upstream: u%d}\n", round%3*10+round%10)
	fmt.Fprintf(&b, "      - {upstream: app%d}\nupstreams:\n  - {name: app%[1]d, members: %s, connect: {timeout: %ds}}\n", round/2%2, memberList(app.addr), 2+round%2)
	fmt.Fprintf(&b, "  - {name: datagrams, members: %s}\n", memberList(datagrams.addr))
	for i := range 10 { // they have other names each time
		fmt.Fprintf(&b, "  - {name: u%d, members: %s, balance: %s}\n", round%3*10+i, memberList(other.addr, app.addr), []string{"first", "source_hash"}[round%2])
	}
	return b.String()
}

// A file of 1,000 routes is reloaded again and again under traffic: no connection and no flow is lost, and what it
// needed is given back. Half of the reloads come by signal, half by the API (R20).
func TestLBReloadsUnderTraffic(t *testing.T) {
	const routes = 1000
	app, other, datagrams := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "other", "127.0.0.1:0"), startUDP(t, "datagrams", "127.0.0.1:0")
	addr, udp := freeAddr(t), freeAddr(t)
	text := func(round int) string { return routesFile(addr, udp, routes, round, app, other, datagrams) }
	b := startLB(t, text(0))
	open, diverted, flow := openTalk(t, "tcp", "127.0.0.2", addr), openTalk(t, "tcp", "127.0.0.140", addr), openTalk(t, "udp", "", udp)
	open.mustSay(t, "before")
	flowAt := flow.mustSay(t, "before")
	divertedAt := diverted.mustSay(t, "before")
	held := b.resources(t) // with these open
	held.descriptors++     // the epoll of those that have fallen asleep since
	v := startVisits(t, 100, func() visit { return visitMember(addr, answerTime) })
	count := rounds(200, 10000)
	if raceEnabled {
		count = 30 // a race shows in some, the memory in many
	}
	var base int64
	var samples int
	began := time.Now()
	for i := range count {
		if i%2 == 0 {
			b.reload(t, text(i))
		} else {
			b.write(t, text(i))
			b.hangUp(t, i+1)
		}
		if i%10 == 0 {
			open.mustSay(t, "still")
			if s := diverted.mustSay(t, "still"); s.by != divertedAt.by {
				t.Fatalf("an open connection went from %s to %s", divertedAt.by, s.by)
			}
			if s := flow.mustSay(t, "still"); s.peer != flowAt.peer {
				t.Fatalf("the flow went from %s to %s", flowAt.peer, s.peer)
			}
		}
		if i == count/10 {
			base, _ = b.memory(t)
			samples = len(b.metrics(t))
		}
	}
	took := time.Since(began)
	if n := strings.Count(b.out.String(), notReloadedLine); n > 0 {
		t.Errorf("%d of %d reloads were refused", n, count)
	}
	visits := v.stop(t)
	failed := 0
	var slowest time.Duration
	for _, one := range visits {
		slowest = max(slowest, one.took)
		if one.err != nil {
			if failed++; failed <= 5 {
				t.Errorf("a visit failed: %v", one.err)
			}
		}
	}
	open.mustSay(t, "after")
	if n := len(b.metrics(t)); n > samples+200 {
		t.Errorf("there are %d samples of metrics after the reloads, %d after a tenth of them", n, samples)
	}
	b.settles(t, held)
	now, _ := b.memory(t)
	t.Logf("%d reloads of %d routes in %v, %d visits, %d failed, slowest %v; memory %s after a tenth, %s at the end",
		count, routes, took, len(visits), failed, slowest, mebibytes(base), mebibytes(now))
	if now > base+16<<20 && !raceEnabled {
		t.Errorf("memory went from %s to %s", mebibytes(base), mebibytes(now))
	}
}

// A file with a fault is refused whole, with its line; what was there goes on (R20).
func TestLBRefusesABadFile(t *testing.T) {
	t.Parallel()
	app, next := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "next", "127.0.0.1:0")
	addr := freeAddr(t)
	good := oneEntrypoint(addr, memberList(app.addr))
	b := startLB(t, good)
	open := openTalk(t, "tcp", "", addr)
	open.mustSay(t, "before")
	top := strings.Count(b.top, "\n")
	for i, c := range []struct {
		name, text string
		line       int
		wants      string
	}{
		{"an unknown upstream", strings.Replace(good, "upstream: app", "upstream: apps", 1), 4, `app`},
		{"a misspelt key", strings.Replace(good, "addr:", "adr:", 1), 3, `addr`},
		{"a bad address", strings.Replace(good, app.addr, "127.0.0.1:99999", 1), 7, `99999`},
		{"no YAML", good + "  - name: \"other\n", 8, ``},
		{"a port that is taken", good + "", 0, ``},
	} {
		text := c.text
		if c.line == 0 { // the file is good, but what it wants cannot be had
			text = strings.Replace(good, "upstreams:", fmt.Sprintf("  - {name: taken, addr: %q, routes: [{upstream: app}]}\nupstreams:", next.addr), 1)
			text = strings.Replace(text, app.addr, next.addr, 1)
		}
		b.write(t, text)
		code, answer := b.api(t, http.MethodPost, "/api/reload", nil)
		if code/100 != 4 && code/100 != 5 {
			t.Errorf("%s: the API answers %d %s", c.name, code, answer)
		}
		if want := fmt.Sprintf(":%d:", top+c.line); c.line > 0 && (!strings.Contains(answer, want) || !strings.Contains(answer, c.wants)) {
			t.Errorf("%s: the API answers %s, want it to name line %s and %q", c.name, answer, want, c.wants)
		}
		b.hangUp(t, 2*i+2)
		if n := strings.Count(b.out.String(), notReloadedLine); n != 2*i+2 {
			t.Errorf("%s: %d of %d refusals in the log", c.name, n, 2*i+2)
		}
		if by := whoAnswers(t, "tcp", "", addr); by != "app" {
			t.Errorf("%s: then %s answers", c.name, by)
		}
		open.mustSay(t, c.name)
	}
	b.reload(t, strings.Replace(good, app.addr, next.addr, 1))
	if by := whoAnswers(t, "tcp", "", addr); by != "next" {
		t.Errorf("after a good file: %s answers", by)
	}
	open.mustSay(t, "after")
}

// A reload opens the ports that are new, closes those that are gone, and leaves the connections of either alone.
func TestLBReloadOpensAndClosesPorts(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	one, two := freeAddr(t), freeAddr(t)
	file := func(name, addr string) string {
		return strings.Replace(oneEntrypoint(addr, memberList(app.addr)), "devices", name, 1)
	}
	b := startLB(t, file("one", one))
	base := b.resources(t)
	open := openTalk(t, "tcp", "", one)
	open.mustSay(t, "before")
	b.reload(t, file("two", two))
	whoAnswers(t, "tcp", "", two)
	if err := refused(one); err != nil {
		t.Errorf("the entrypoint that is gone: %v", err)
	}
	open.mustSay(t, "after")
	b.reload(t, file("one", two)) // the name stays, the address changes hands
	whoAnswers(t, "tcp", "", two)
	b.reload(t, file("one", one))
	whoAnswers(t, "tcp", "", one)
	open.mustSay(t, "at the end")
	open.Close()
	b.settles(t, base)
}

// Whoever sends signals and whoever asks the API at the same time: each reload is whole, none waits for ever.
func TestLBReloadsAtOnce(t *testing.T) {
	t.Parallel()
	one, two := startTCP(t, "one", "127.0.0.1:0"), startTCP(t, "two", "127.0.0.1:0")
	addr := freeAddr(t)
	b := startLB(t, oneEntrypoint(addr, memberList(one.addr)))
	v := startVisits(t, 100, func() visit { return visitMember(addr, answerTime) })
	var wait sync.WaitGroup
	var editor sync.Mutex
	for range 4 {
		wait.Go(func() {
			for i := range 20 {
				editor.Lock()
				b.write(t, oneEntrypoint(addr, memberList([]string{one.addr, two.addr}[i%2])))
				editor.Unlock()
				b.signal(t, syscall.SIGHUP)
				if code, answer := b.api(t, http.MethodPost, "/api/reload", nil); code/100 != 2 {
					t.Errorf("POST /api/reload: %d %s", code, answer)
				}
			}
		})
	}
	wait.Wait()
	for _, one := range v.stop(t) {
		if one.err != nil {
			t.Errorf("a visit: %v", one.err)
		}
	}
	b.reload(t, oneEntrypoint(addr, memberList(two.addr)))
	if by := whoAnswers(t, "tcp", "", addr); by != "two" {
		t.Errorf("at the end %s answers", by)
	}
}

// A server without a file has nothing to read again: SIGHUP ends neither it nor its visitors.
func TestSIGHUPWithoutAFile(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	s := startServer(t)
	tunnel := freeAddr(t)
	c := s.clientProgram(t, "tcp client", "--upstream", port(t, tunnel)+"="+app.addr)
	accepts(t, "tcp", tunnel)
	open := openTalk(t, "tcp", "", tunnel)
	open.mustSay(t, "before")
	s.signal(t, syscall.SIGHUP)
	s.line(t, `--config`)
	open.mustSay(t, "after")
	if code, answer := s.api(t, http.MethodPost, "/api/reload", nil); code/100 == 2 || !strings.Contains(answer, "--config") {
		t.Errorf("POST /api/reload: %d %s", code, answer)
	}
	open.Close()
	c.stop(t)
}

// A signal that comes while the program starts is granted when it serves: it would end the program otherwise.
func TestLBSIGHUPWhileItStarts(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	addr := freeAddr(t)
	file := write(t, t.TempDir(), "culvert.yaml", oneEntrypoint(addr, memberList(app.addr)), 0o600)
	p := start(t, program{argv: []string{culvert(), "lb", "--config", file}})
	p.line(t, `entrypoint opened`)
	p.signal(t, syscall.SIGHUP)
	p.line(t, reloadedLine)
	if by := whoAnswers(t, "tcp", "", addr); by != "app" {
		t.Errorf("%s answers", by)
	}
	p.stop(t)
}
