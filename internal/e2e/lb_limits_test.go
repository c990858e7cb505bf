//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// turnedAway connects and wants the end of it, not refused by a closed port and not answered.
func turnedAway(source, addr string, within time.Duration) error {
	c, err := dialFrom("tcp", source, addr, within)
	if errors.Is(err, syscall.ECONNRESET) { // before connect has returned
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(within)) // fails only on a closed connection
	if n, err := c.Read(make([]byte, 1)); n > 0 || isTimeout(err) {
		return fmt.Errorf("got %d bytes: %w", n, err)
	}
	return nil
}

func TestLBMaxConnsAndQueue(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	addr, none := freeAddr(t), freeAddr(t)
	b := startLB(t, fmt.Sprintf(`
entrypoints:
  - {name: queued, addr: %q, routes: [{upstream: queued}]}
  - {name: unqueued, addr: %q, routes: [{upstream: unqueued}]}
upstreams:
  - name: queued
    members: [{address: %q, max_conns: 2}]
    queue: {max: 2, timeout: 5s}
  - name: unqueued
    members: [{address: %[3]q, max_conns: 1}]
`, addr, none, app.addr))
	one, two := openTalk(t, "tcp", "", addr), openTalk(t, "tcp", "", addr)
	one.mustSay(t, "one")
	two.mustSay(t, "two")
	waiting := func(n float64) *talk {
		t.Helper()
		k := openTalk(t, "tcp", "", addr)
		if _, err := io.WriteString(k.Conn, "waits\n"); err != nil {
			t.Fatal(err)
		}
		until(t, "it waits", func() bool { return sum(b.metrics(t), "culvert_upstream_queued", `upstream="queued"`) == n })
		return k
	}
	third, fourth := waiting(1), waiting(2)
	if err := turnedAway("", addr, 3*time.Second); err != nil {
		t.Errorf("the third who would wait, where two may: %v", err)
	}
	one.Close()
	begun := time.Now()
	_ = third.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if line, err := third.lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "app") {
		t.Errorf("the first who waited: %q %v", line, err)
	}
	t.Logf("a visitor who waited is served %v after another went", time.Since(begun))
	_ = fourth.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if line, err := fourth.lines.ReadString('\n'); err == nil || isTimeout(err) {
		t.Errorf("the second who waited: %q %v, want the end after the queue's 5 s", line, err)
	}
	if n := app.open.Load(); n > 2 {
		t.Errorf("the member has %d connections, want 2 at most", n)
	}
	two.mustSay(t, "still")

	whole := openTalk(t, "tcp", "", none)
	whole.mustSay(t, "one")
	if err := turnedAway("", none, time.Second); err != nil {
		t.Errorf("without a queue: %v", err)
	}
	whole.Close()
	until(t, "the place is free again", func() bool { return visitMember(none, answerTime).err == nil })
}

func TestLBEntrypointMaxConnsAndAllow(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	addr := freeAddr(t)
	startLB(t, strings.Replace(oneEntrypoint(addr, memberList(app.addr)), "    routes:", "    max_conns: 2\n    allow: [127.0.0.0/25]\n    routes:", 1))
	one, two := openTalk(t, "tcp", "127.0.0.2", addr), openTalk(t, "tcp", "127.0.0.2", addr)
	one.mustSay(t, "one")
	two.mustSay(t, "two")
	// The third waits in the kernel or is turned away: the member does not hear of it.
	if err := turnedAway("127.0.0.2", addr, time.Second); err != nil && !isTimeout(err) {
		t.Errorf("the third of two connections: %v", err)
	}
	if n := app.accepted.Load(); n != 2 {
		t.Errorf("the member had %d connections, want 2", n)
	}
	one.Close()
	until(t, "the place is free again", func() bool {
		c, err := dialFrom("tcp", "127.0.0.2", addr, patience)
		if err != nil {
			return false
		}
		defer c.Close()
		_, err = newTalk(c).says("free", answerTime)
		return err == nil
	})
	two.mustSay(t, "still")
	had := app.accepted.Load()
	if err := turnedAway("127.0.0.200", addr, patience); err != nil {
		t.Errorf("a source that is not allowed: %v", err)
	}
	if n := app.accepted.Load(); n != had {
		t.Error("a source that is not allowed reached the member")
	}
}

// Backups serve when no other does, and no longer.
func TestLBBackup(t *testing.T) {
	t.Parallel()
	p, app := startMember(t, "tcp", "app")
	one, two := startTCP(t, "spare1", "127.0.0.1:0"), startTCP(t, "spare2", "127.0.0.1:0")
	addr := freeAddr(t)
	b := startLB(t, oneEntrypoint(addr,
		fmt.Sprintf("[{address: %q}, {address: %q, backup: true}, {address: %q, backup: true}]", app, one.addr, two.addr),
		"health: {tcp: {}, interval: 300ms, timeout: 300ms, rise: 1, fall: 2}"))
	if n := tally(whoAnswerEach(t, 10, "tcp", "", addr)); n["app"] != 10 {
		t.Errorf("10 connections went %v", n)
	}
	p.kill(t)
	if n := tally(whoAnswerEach(t, 10, "tcp", "", addr)); n["spare1"] != 5 || n["spare2"] != 5 {
		t.Errorf("without the first member 10 connections went %v", n)
	}
	until(t, "its check has found it", func() bool { return sum(b.metrics(t), "culvert_member_up") == 2 })
	againMember(t, "tcp", "app", app)
	until(t, "the first member serves again", func() bool { return whoAnswers(t, "tcp", "", addr) == "app" })
	if n := tally(whoAnswerEach(t, 10, "tcp", "", addr)); n["app"] != 10 {
		t.Errorf("with the first member back 10 connections went %v", n)
	}
}

// A member that comes back takes its share over the time of slow_start.
func TestLBSlowStart(t *testing.T) {
	t.Parallel()
	const ramp = 5 * time.Second
	p, back := startMember(t, "tcp", "back")
	stays := startTCP(t, "stays", "127.0.0.1:0")
	addr := freeAddr(t)
	b := startLB(t, oneEntrypoint(addr, memberList(back, stays.addr),
		"health: {tcp: {}, interval: 300ms, timeout: 300ms, rise: 1, fall: 2}", "slow_start: 5s"))
	if n := tally(whoAnswerEach(t, 40, "tcp", "", addr)); n["back"] < 15 {
		t.Logf("at the start of the balancer itself: %v", n)
	}
	p.kill(t)
	until(t, "its check has found it", func() bool { return sum(b.metrics(t), "culvert_member_up") == 1 })
	againMember(t, "tcp", "back", back)
	eventually(t, patience, "the member that came back has one", func(context.Context) error {
		if whoAnswers(t, "tcp", "", addr) != "back" {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	begun := time.Now()
	share := func() float64 { return float64(tally(whoAnswerEach(t, 60, "tcp", "", addr))["back"]) / 60 }
	early := share()
	lasts(t, ramp/2-time.Since(begun))
	half := share()
	lasts(t, ramp+time.Second-time.Since(begun))
	late := share()
	t.Logf("share of the member that came back: %.0f %% at once, %.0f %% at half of %v, %.0f %% after it", 100*early, 100*half, ramp, 100*late)
	if early > 0.25 || half < early || half > 0.45 || late < 0.45 {
		t.Error("want it small at first, more at half, and half of all at the end")
	}
}

// A member is drained and weighted at run time, from the operator's own machine.
func TestLBMembersByAPI(t *testing.T) {
	t.Parallel()
	a, c := startTCP(t, "a", "127.0.0.1:0"), startTCP(t, "c", "127.0.0.1:0")
	addr := freeAddr(t)
	text := oneEntrypoint(addr, fmt.Sprintf("[{address: %q, name: one}, {address: %q, name: two}]", a.addr, c.addr))
	b := startLB(t, text)
	open := openTalk(t, "tcp", "", addr)
	for open.mustSay(t, "where").by != "a" {
		open = openTalk(t, "tcp", "", addr)
	}
	b.mustAPI(t, http.MethodPatch, "/api/upstreams/app/members/one", map[string]any{"drain": true})
	if n := tally(whoAnswerEach(t, 10, "tcp", "", addr)); n["c"] != 10 {
		t.Errorf("with one drained 10 connections went %v", n)
	}
	if s := open.mustSay(t, "still"); s.by != "a" {
		t.Errorf("the open connection went to %s", s.by)
	}
	b.reload(t, text)
	if n := tally(whoAnswerEach(t, 10, "tcp", "", addr)); n["c"] != 10 {
		t.Errorf("with one drained, after a reload of the same file, 10 connections went %v", n)
	}
	b.mustAPI(t, http.MethodPatch, "/api/upstreams/app/members/one", map[string]any{"drain": false})
	if n := tally(whoAnswerEach(t, 10, "tcp", "", addr)); n["a"] != 5 {
		t.Errorf("with none drained 10 connections went %v", n)
	}
	b.mustAPI(t, http.MethodPatch, "/api/upstreams/app/members/one", map[string]any{"weight": 3})
	if n := tally(whoAnswerEach(t, 20, "tcp", "", addr)); n["a"] != 15 {
		t.Errorf("with weights 3 and 1 20 connections went %v", n)
	}
	for path, wants := range map[string]string{
		"/api/upstreams/app/members/three": "one",
		"/api/upstreams/apps/members/one":  "app",
	} {
		code, answer := b.api(t, http.MethodPatch, path, map[string]any{"drain": true})
		if code != http.StatusNotFound || !strings.Contains(answer, wants) {
			t.Errorf("%s: %d %s, want 404 and the names that there are", path, code, answer)
		}
	}
	if answer := b.mustAPI(t, http.MethodGet, "/api/dataplane", nil); !strings.Contains(answer, `"one"`) || !strings.Contains(answer, `"devices"`) {
		t.Errorf("/api/dataplane: %s", answer)
	}
	s := *b.server
	s.token = "no-such-token"
	if code, answer := s.api(t, http.MethodPatch, "/api/upstreams/app/members/one", map[string]any{"weight": 5}); code != http.StatusUnauthorized {
		t.Errorf("without a token: %d %s", code, answer)
	}
}

// The target of a rule is down: on_down says whether its visitors go on to the next rule.
func TestLBOnDown(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	p, debug := startMember(t, "tcp", "debug")
	fail, fallback, unchecked := freeAddr(t), freeAddr(t), freeAddr(t)
	startLB(t, fmt.Sprintf(`
entrypoints:
  - name: fail
    addr: %q
    routes: [{match: {source: 127.0.0.140}, upstream: debug}, {upstream: app}]
  - name: fallback
    addr: %q
    routes: [{match: {source: 127.0.0.140}, upstream: debug, on_down: fallback}, {upstream: app}]
  - name: unchecked
    addr: %q
    routes: [{match: {source: 127.0.0.140}, upstream: bare, on_down: fallback}, {upstream: app}]
upstreams:
  - {name: debug, members: %s, health: {tcp: {}, interval: 300ms, timeout: 300ms, rise: 1, fall: 2}}
  - {name: bare, members: %[4]s}
  - {name: app, members: %s}
`, fail, fallback, unchecked, memberList(debug), memberList(app.addr)))
	all := []string{fail, fallback, unchecked}
	for _, a := range all {
		if by := whoAnswers(t, "tcp", "127.0.0.140", a); by != "debug" {
			t.Errorf("%s answers", by)
		}
	}
	p.kill(t)
	for i := range 10 { // at once, and when the check has found it
		if by := whoAnswers(t, "tcp", "127.0.0.140", fallback); by != "app" {
			t.Errorf("fallback, visitor %d: %s answers", i, by)
		}
		if by := whoAnswers(t, "tcp", "127.0.0.140", unchecked); by != "app" {
			t.Errorf("fallback without a check, visitor %d: %s answers", i, by)
		}
		if err := turnedAway("127.0.0.140", fail, answerTime); err != nil {
			t.Errorf("fail, visitor %d: %v", i, err)
		}
		for _, a := range all {
			if by := whoAnswers(t, "tcp", "127.0.0.2", a); by != "app" {
				t.Errorf("another source: %s answers", by)
			}
		}
		lasts(t, 100*time.Millisecond)
	}
	againMember(t, "tcp", "debug", debug)
	for _, a := range []string{fail, fallback} {
		until(t, "the target serves again", func() bool { return answers(a, "127.0.0.140") == "debug" })
	}
}

// answers is who answers a source, "" for nobody.
func answers(addr, source string) string {
	c, err := dialFrom("tcp", source, addr, patience)
	if err != nil {
		return ""
	}
	defer c.Close()
	s, _ := newTalk(c).says("who", answerTime)
	return s.by
}

// A part of the new connections goes to another upstream.
func TestLBPercent(t *testing.T) {
	t.Parallel()
	app, canary := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "canary", "127.0.0.1:0")
	addr := freeAddr(t)
	startLB(t, strings.Replace(oneEntrypoint(addr, memberList(app.addr)), "routes: [", "routes: [{match: {percent: 20}, upstream: canary}, ", 1)+
		"  - {name: canary, members: "+memberList(canary.addr)+"}\n")
	const visitors = 500
	n := tally(whoAnswerEach(t, visitors, "tcp", "", addr))
	t.Logf("20 %% of %d: %d", visitors, n["canary"])
	if n["canary"] < 50 || n["canary"] > 160 { // 100 and more than five times 9 either way
		t.Errorf("%d of %d, want 20 %%", n["canary"], visitors)
	}
}

// A connection on which nothing moves ends when the entrypoint says so, and so does one that one side has closed.
func TestLBIdleTimeouts(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	pour := startEnder(t)
	idle, half := freeAddr(t), freeAddr(t)
	startLB(t, fmt.Sprintf(`
entrypoints:
  - {name: idle, addr: %q, idle_timeout: 2s, routes: [{upstream: app}]}
  - {name: half, addr: %q, half_closed_timeout: 300ms, routes: [{upstream: ender}]}
upstreams:
  - {name: app, members: %s}
  - {name: ender, members: %s}
`, idle, half, memberList(app.addr), memberList(pour.addr)))
	k := openTalk(t, "tcp", "", idle)
	for range 8 { // longer than the time, but never idle for it
		k.mustSay(t, "busy")
		lasts(t, 300*time.Millisecond)
	}
	began := time.Now()
	k.mustSay(t, "last")
	_ = k.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if _, err := k.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("an idle connection: %v", err)
	}
	if took := time.Since(began); took < 1900*time.Millisecond || took > 10*time.Second {
		t.Errorf("an idle connection ended after %v, want 2 s", took)
	}
	until(t, "the member is rid of it", func() bool { return app.open.Load() == 0 })

	c, err := net.Dial("tcp", half)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{answerAfterEnd, 'x'}); err != nil { // its answer, X, comes after a second
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	_ = c.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if p, err := io.ReadAll(c); isTimeout(err) || len(p) > 0 {
		t.Errorf("a half-closed connection: got %q, %v, want its end before the answer", p, err)
	}
	t.Logf("a half-closed connection ended after %v", time.Since(began))
}

// Descriptors run out: visitors wait or are sent away, nothing spins, and when there are some again everything goes on.
func TestLBWithoutDescriptors(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	addr := freeAddr(t)
	file := write(t, t.TempDir(), "culvert.yaml", oneEntrypoint(addr, memberList(app.addr)), 0o600)
	p := start(t, program{argv: []string{"sh", "-c", `ulimit -n 64; exec "$0" lb --config "$1"`, culvert(), file}})
	accepts(t, "tcp", addr)
	kept := openTalk(t, "tcp", "", addr)
	kept.mustSay(t, "before")
	var many []net.Conn
	for range 150 {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			break // the kernel's queue of it is full, or it was sent away
		}
		defer c.Close()
		many = append(many, c)
	}
	kept.mustSay(t, "in the midst of it")
	lasts(t, time.Second) // in which it must not spin
	if ticks := p.cpuTicks(t); ticks > 60 {
		t.Errorf("it has used %d ticks of processor", ticks)
	}
	for _, c := range many {
		c.Close()
	}
	served := func() bool { return visitMember(addr, answerTime).err == nil }
	until(t, "visitors are served again", served)
	kept.mustSay(t, "after")
	for range 5 { // short again, which is no news by now
		var more []net.Conn
		for range 60 {
			if c, err := net.DialTimeout("tcp", addr, patience); err == nil {
				more = append(more, c)
			}
		}
		for _, c := range more {
			c.Close()
		}
		until(t, "visitors are served again", served)
	}
	if n := strings.Count(p.out.String(), "connections wait to be accepted"); n != 1 {
		t.Errorf("%d lines of the log about descriptors, want 1", n)
	}
	kept.Close()
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
