//go:build linux

package e2e

import (
	"syscall"
	"testing"
	"time"
)

// Two clients offer one port, one of them freezes as a machine that sleeps: it neither answers nor closes anything.
func TestFrozenClient(t *testing.T) {
	freezes := []struct {
		name  string
		lasts time.Duration
		long  bool
		keeps bool // what it carries goes on when it wakes
	}{
		{"3 s", 3 * time.Second, false, true},
		{"15 s, within the resume window", 15 * time.Second, true, true},
		{"45 s, after the resume window", 45 * time.Second, true, false},
	}
	for _, f := range freezes {
		t.Run(f.name, func(t *testing.T) {
			if f.long {
				onlyLong(t)
			}
			freezeOne(t, f.lasts, f.keeps)
		})
	}
}

// A book says how many requests a service had, and how often each.
type book interface{ count(nonce string) int }

func freezeOne(t *testing.T, freeze time.Duration, keeps bool) {
	t.Helper()
	a, b := startLedger(t), startLedger(t)
	webA, webB := startHTTPLedger(t), startHTTPLedger(t)
	s := startServer(t)
	tunnel, only := freeAddr(t), freeAddr(t)
	s.client(t, "--id", "stays", "--upstream", port(t, tunnel)+"="+a.Addr().String(), "--upstream", webA.URL)
	freezing := s.client(t, "--id", "freezes", "--upstream", port(t, tunnel)+"="+b.Addr().String(),
		"--upstream", webB.URL, "--upstream", port(t, only)+"="+startEcho(t).addr)
	s.members(t, 2, patience)
	accepts(t, "tcp", tunnel)
	open := dialEcho(t, only)
	open.echoes(t, patience)

	perSecond := 400
	if raceEnabled {
		perSecond = 80 // the detector makes a connection ten times as dear
	}
	tcp := startVisits(t, perSecond, func() visit { return visitLedger(tunnel, answerTime) })
	web := startVisits(t, perSecond/4, func() visit { return visitHTTP(s.data, answerTime) })
	until(t, "both clients carry both", func() bool {
		return min(a.total.Load(), b.total.Load(), webA.total.Load(), webB.total.Load()) > 20
	})
	frozen := time.Now()
	freezing.signal(t, syscall.SIGSTOP)
	lasts(t, freeze)
	freezing.signal(t, syscall.SIGCONT)
	woken, had, webHad := time.Now(), b.total.Load(), webB.total.Load()
	until(t, "the client that woke carries both again", func() bool {
		return b.total.Load() > had+50 && webB.total.Load() > webHad+10
	})
	t.Logf("the client carries both again %v after it woke", time.Since(woken))
	if keeps {
		t.Logf("the connection that was open through it answers after %v", open.echoes(t, patience))
	}
	judge(t, "TCP", tcp.stop(t), frozen, woken, a, b)
	judge(t, "HTTP", web.stop(t), frozen, woken, webA, webB)
}

// judge holds the visits to what is promised, and logs how they went.
func judge(t *testing.T, plane string, visits []visit, frozen, woken time.Time, stays, freezes book) {
	t.Helper()
	var failed, wrong, late int
	var lastFailed, slowest, slowestLate time.Duration
	for _, v := range visits {
		a, b := stays.count(v.nonce), freezes.count(v.nonce)
		begun := v.begun.Sub(frozen)
		if a+b > 1 {
			t.Errorf("%s: a request that began %v after the freeze ran %d times where the client stays and %d times where it froze", plane, begun, a, b)
		}
		if v.err == nil && a+b != 1 {
			t.Errorf("%s: a request that began %v after the freeze was answered and ran %d times", plane, begun, a+b)
		}
		if v.err != nil {
			failed++
			lastFailed = max(lastFailed, begun)
			if begun <= time.Second && begun >= -answerTime {
				continue
			}
			if wrong++; wrong <= 5 {
				t.Errorf("%s: a visit that began %v after the freeze failed after %v: %v", plane, begun, v.took, v.err)
			}
			continue
		}
		slowest = max(slowest, v.took)
		if begun > time.Second && v.begun.Before(woken) {
			late++
			slowestLate = max(slowestLate, v.took)
		}
	}
	if wrong > 5 {
		t.Errorf("%s: and %d more", plane, wrong-5)
	}
	t.Logf("%s: %d visits, %d failed, the last of those began %v after the freeze; slowest answer %v", plane, len(visits), failed, lastFailed, slowest)
	t.Logf("%s: %d began later than 1 s after the freeze and before its end, their slowest answer took %v", plane, late, slowestLate)
}
