package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// service is what a checker of these tests asks.
type service struct {
	begun time.Time

	mu    sync.Mutex
	err   error // of the next answers
	hangs bool  // no answer
	asked []time.Duration
}

func (s *service) probe(ctx context.Context) (leave func(), err error) {
	s.mu.Lock()
	hangs := s.hangs
	err = s.err
	s.asked = append(s.asked, time.Since(s.begun))
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		err = ctx.Err()
	}
	return func() {}, err
}

func (s *service) becomes(err error, hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.hangs = err, hangs
}

type change struct {
	at    time.Duration
	up    bool
	cause error
}

// follow runs a checker of the service inside a bubble.
func follow(t *testing.T, c Check, s *service) (checker *Checker, changes func() []change) {
	t.Helper()
	return followAt(t, c, s, func() float64 { return 0 }) // the latest moment there is
}

func followAt(t *testing.T, c Check, s *service, chance func() float64) (checker *Checker, changes func() []change) {
	t.Helper()
	s.begun = time.Now()
	var seen []change
	checker, err := New(Config{Check: c, Network: "tcp", Address: "192.0.2.1:1", OnChange: func(up bool, cause error) {
		seen = append(seen, change{time.Since(s.begun), up, cause})
	}})
	if err != nil {
		t.Fatal(err)
	}
	checker.probe = s.probe
	checker.chance = chance
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		checker.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	return checker, func() []change {
		synctest.Wait()
		return seen
	}
}

var errDown = errors.New("connection refused")

func TestTheFirstAnswerDecidesAtOnce(t *testing.T) {
	for _, err := range []error{nil, errDown} {
		synctest.Test(t, func(t *testing.T) {
			checker, changes := follow(t, Check{Kind: TCP}, &service{err: err})
			got := changes()
			if len(got) != 1 || got[0].at != 0 || got[0].up != (err == nil) || got[0].cause != err {
				t.Errorf("answer %v: changes %v", err, got)
			}
			if s := checker.Status(); !s.Known || s.Up != (err == nil) || s.Checks != 1 || s.Changes != 1 {
				t.Errorf("answer %v: status %+v", err, s)
			}
		})
	}
}

func TestChangesTakeAnswersInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		checker, changes := follow(t, Check{Kind: TCP, Interval: time.Second, Rise: 2, Fall: 3}, s)
		changes()
		answer := func(errs ...error) {
			for _, err := range errs {
				s.becomes(err, false)
				time.Sleep(time.Second)
				synctest.Wait()
			}
		}
		answer(errDown, errDown, nil, errDown, errDown) // never three in a row
		if got := changes(); len(got) != 1 {
			t.Fatalf("changes %v, want none after the first", got)
		}
		answer(errDown)
		if got := changes(); len(got) != 2 || got[1].up || got[1].cause != errDown {
			t.Fatalf("after three failures in a row: changes %v", got)
		}
		answer(nil, errDown, nil)
		if got := changes(); len(got) != 2 {
			t.Fatalf("one good answer at a time: changes %v", got)
		}
		answer(nil)
		if got := changes(); len(got) != 3 || !got[2].up || got[2].cause != nil {
			t.Fatalf("after two good answers in a row: changes %v", got)
		}
		st := checker.Status()
		if st.Checks != 11 || st.Failures != 6 || st.Changes != 3 || st.LastError != errDown.Error() {
			t.Errorf("status %+v", st)
		}
	})
}

func TestAServiceThatHangsIsDownInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		c := Check{Kind: Expect, Expect: "x", Interval: 2 * time.Second, Timeout: 500 * time.Millisecond, Fall: 3}
		_, changes := follow(t, c, s)
		changes()
		s.becomes(nil, true) // just after a good answer: the worst moment
		time.Sleep(3*c.Interval + c.Timeout)
		got := changes()
		if len(got) != 2 || got[1].up {
			t.Errorf("after fall intervals and a timeout: changes %v", got)
		}
	})
}

func TestACertainFailureNeedsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		_, changes := follow(t, Check{Kind: UDP, Interval: time.Second, Fall: 3}, s)
		changes()
		s.becomes(&certain{errDown}, false)
		time.Sleep(time.Second)
		if got := changes(); len(got) != 2 || got[1].up || !errors.Is(got[1].cause, errDown) {
			t.Errorf("changes %v", got)
		}
	})
}

func TestACheckTakesNoLongerThanTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{hangs: true}
		_, changes := follow(t, Check{Kind: TCP, Interval: time.Second, Timeout: time.Minute}, s)
		time.Sleep(10 * time.Second)
		changes()
		if len(s.asked) < 10 {
			t.Errorf("asked %d times in 10 s", len(s.asked))
		}
	})
}

// Many checkers that begin together ask at moments of their own from the second time on.
func TestChecksDoNotRunInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const checkers = 100
		c := Check{Kind: TCP, Interval: time.Second}
		var services []*service
		for range checkers {
			s := &service{}
			followAt(t, c, s, rand.Float64) // as in production
			services = append(services, s)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		for n := 1; n < 10; n++ {
			tenths := make([]int, 10)
			for _, s := range services {
				tenths[int(s.asked[n]/(100*time.Millisecond))%10]++
			}
			if most := slices.Max(tenths); most > checkers/2 {
				t.Errorf("check %d: %d of %d within a tenth of the interval", n, most, checkers)
			}
		}
		for _, s := range services {
			for i := 1; i < len(s.asked); i++ {
				if gap := s.asked[i] - s.asked[i-1]; gap > c.Interval {
					t.Fatalf("%s between two checks", gap)
				}
			}
			if len(s.asked) < 20 || len(s.asked) > 25 {
				t.Fatalf("asked %d times in 20 intervals", len(s.asked))
			}
		}
	})
}

// plain is a checker as New makes it.
func plain(t *testing.T) *Checker {
	t.Helper()
	c, err := New(Config{Check: Check{Kind: TCP}, Network: "tcp", Address: "192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNothingIsToldAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plain(t)
		c.onChange = func(bool, error) { t.Error("told of a check that was cut short") }
		c.probe = (&service{hangs: true}).probe
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		c.Run(ctx)
	})
}

func TestWrongChecks(t *testing.T) {
	for want, c := range map[string]Check{
		"kind of check":    {Kind: "ping"},
		"no method, path":  {Kind: TCP, Path: "/x"},
		"changes someth":   {Kind: HTTP, Method: "POST"},
		"HEAD has no body": {Kind: HTTP, Method: "HEAD", Expect: "x"},
		"nothing of one's": {Kind: HTTP, Send: "x"},
		"begin with":       {Kind: HTTP, Path: "healthz"},
		"space in it":      {Kind: HTTP, Path: "/a b"},
		"is not a host":    {Kind: HTTP, Host: "a\r\nX: y"},
		"range of codes":   {Kind: HTTP, Status: []StatusRange{{300, 200}}},
		"use expect":       {Kind: TCP, Send: "x"},
		"interval: 1ms":    {Kind: TCP, Interval: time.Millisecond},
		"timeout: -1s":     {Kind: TCP, Timeout: -time.Second},
		"rise: give":       {Kind: TCP, Rise: -1},
		"fall: give":       {Kind: TCP, Fall: 1001},
		"not for UDP":      {Kind: UDP, Proxy: 1},
		"no version 3":     {Kind: TCP, Proxy: 3},
		"more than 4096 b": {Kind: Expect, Expect: strings.Repeat("x", 4097)},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q in it", c, err, want)
		}
	}
}

func TestWrongTargets(t *testing.T) {
	for _, cfg := range []Config{
		{Check: Check{Kind: UDP}, Network: "unix", Address: "/x"},
		{Check: Check{Kind: TCP, Port: 1}, Network: "unix", Address: "/x"},
		{Check: Check{Kind: TCP, Port: 1}, Network: "tcp", Address: "host"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}
