//go:build linux

package e2e

import (
	"testing"
	"time"
)

// A failure takes one of three members away under a steady flood of new connections.
type failure struct {
	name   string
	health []string // lines of the upstream
	begin  func(t *testing.T, f *failure)
	// found is when no visitor may fail any more, counted from the beginning; what came before may fail only where a
	// member had taken the connection.
	found time.Duration
	// slow is how long a visit may take that begins after that.
	slow time.Duration
	// slowMost is how many visits may take longer, of some hundreds. Where the member is still tried, it is a third of them.
	slowMost int

	victim *process
	addr   string
}

func TestLBFailureOfOneOfThree(t *testing.T) {
	need(t, "nft")
	const hiccups = 10 // visits that a busy machine holds up
	for _, f := range []failure{
		{
			name:  "killed",
			begin: func(t *testing.T, f *failure) { f.victim.kill(t) },
			slow:  500 * time.Millisecond, slowMost: hiccups,
		},
		{
			// The kernel of a frozen process still accepts: only a check that wants an answer finds it.
			name: "frozen, with a check that expects an answer",
			health: []string{
				`health: {expect: {send: "ping\n", expect: "app"}, interval: 500ms, timeout: 500ms, rise: 2, fall: 2}`,
				`close_on_down: true`,
			},
			begin: func(t *testing.T, f *failure) { f.victim.freeze(t) },
			found: 2*500*time.Millisecond + 500*time.Millisecond + time.Second, // interval x fall + timeout, and a busy machine
			slow:  500 * time.Millisecond, slowMost: hiccups,
		},
		{
			name:   "blackholed",
			health: []string{`connect: {timeout: 1s, retries: 2}`},
			begin: func(t *testing.T, f *failure) {
				startFirewall(t).drop(t, toOrFrom(t, f.addr)...)
			},
			found: 1500 * time.Millisecond, // three connects wait for a second, and are tried elsewhere
			slow:  800 * time.Millisecond,
			// A member has a trial each time its ejection ends, which one visitor waits for: after 10 s, 20 s more, …
			slowMost: hiccups + rounds(0, 3),
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			failOneOfThree(t, f)
		})
	}
}

func failOneOfThree(t *testing.T, f failure) {
	t.Helper()
	_, one := startMember(t, "tcp", "app1")
	_, two := startMember(t, "tcp", "app2")
	f.victim, f.addr = startMember(t, "tcp", "app3")
	addr := freeAddr(t)
	b := startLB(t, oneEntrypoint(addr, memberList(one, two, f.addr), f.health...))
	perSecond := 200
	if raceEnabled {
		perSecond = 60 // the detector makes a connection ten times as dear
	}
	v := startVisits(t, perSecond, func() visit { return visitMember(addr, answerTime) })
	lasts(t, time.Second)
	defer f.victim.kill(t) // a frozen one would not end when asked
	f.begin(t, &f)
	began := time.Now()
	lasts(t, f.found+time.Duration(rounds(3, 35))*time.Second)
	var failed, wrong, slow int
	var lastFailed, slowest time.Duration
	served := map[string]int{}
	for _, one := range v.stop(t) {
		begun := one.begun.Sub(began)
		served[one.by]++
		if one.err != nil {
			failed++
			lastFailed = max(lastFailed, begun)
			if begun > f.found || begun > 0 && f.found == 0 || begun < -time.Second {
				if wrong++; wrong <= 5 {
					t.Errorf("a visit that began %v after the failure failed after %v: %v", begun, one.took, one.err)
				}
			}
			continue
		}
		if begun > f.found {
			if one.took > f.slow {
				slow++
			}
			slowest = max(slowest, one.took)
		}
	}
	if wrong > 5 {
		t.Errorf("and %d more", wrong-5)
	}
	if slow > f.slowMost {
		t.Errorf("%d visits that began later than %v after the failure took more than %v, want %d at most", slow, f.found, f.slow, f.slowMost)
	}
	m := b.metrics(t)
	t.Logf("visits by member: %v; failed: %d, the last of them began %v after the failure; slowest after %v: %v; ejections %v, retries %v",
		served, failed, lastFailed, f.found, slowest,
		sum(m, "culvert_upstream_ejections_total"), sum(m, "culvert_upstream_retries_total"))
	if served["app1"] == 0 || served["app2"] == 0 || served["app3"] == 0 {
		t.Errorf("visits by member: %v, want all three to have had some", served)
	}
}

// Every connect of a blackholed member is retried: a visitor waits for one of them, and none fails. (The visitors that
// a member had taken before are the frozen member's case.)
func TestLBRetriesWhatNobodyHasAnswered(t *testing.T) {
	need(t, "nft")
	t.Parallel()
	alive := startTCP(t, "alive", "127.0.0.1:0")
	gone := freeAddr(t) // refuses
	hole := startTCP(t, "hole", "127.0.0.1:0")
	startFirewall(t).drop(t, "tcp dport "+port(t, hole.addr))
	addr := freeAddr(t)
	startLB(t, oneEntrypoint(addr, memberList(gone, hole.addr, alive.addr), `connect: {timeout: 500ms, retries: 2}`))
	var waited []time.Duration
	for range 12 {
		v := visitMember(addr, answerTime)
		if v.err != nil || v.by != "alive" {
			t.Errorf("%+v", v)
		}
		if v.took >= 500*time.Millisecond {
			waited = append(waited, v.took)
		}
	}
	t.Logf("of 12 visitors these waited for the silent member: %v", waited)
	if len(waited) > 4 {
		t.Errorf("%d of 12 visitors waited for a member that is silent, want it ejected after three", len(waited))
	}
	if hole.accepted.Load() != 0 {
		t.Error("the silent member was reached")
	}
}

// A member that is marked down by its check and comes back carries visits again.
func TestLBMemberComesBack(t *testing.T) {
	t.Parallel()
	p, back := startMember(t, "tcp", "back")
	stays := startTCP(t, "stays", "127.0.0.1:0")
	addr := freeAddr(t)
	b := startLB(t, oneEntrypoint(addr, memberList(back, stays.addr), `health: {tcp: {}, interval: 200ms, timeout: 200ms, rise: 2, fall: 2}`))
	until(t, "both carry", func() bool { return len(tally(whoAnswerEach(t, 4, "tcp", "", addr))) == 2 })
	p.kill(t)
	for range 20 {
		if v := visitMember(addr, answerTime); v.err != nil {
			t.Errorf("while one is gone: %v", v.err)
		}
	}
	until(t, "its check has found it", func() bool { return sum(b.metrics(t), "culvert_member_up") == 1 })
	againMember(t, "tcp", "back", back)
	began := time.Now()
	until(t, "both carry again", func() bool { return len(tally(whoAnswerEach(t, 4, "tcp", "", addr))) == 2 })
	t.Logf("the member carries again %v after its start", time.Since(began))
}
