package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"culvert/bench/load"
	"culvert/bench/trials"
)

const (
	freezeLatest = "s after the stop that a failed connection began, at the latest"
	freezeTwice  = "requests that ran twice"
)

// freeze measures how long new connections fail when one of two clients hangs, and whether any request runs twice.
func freeze(ctx context.Context, t *trials.Trial) error {
	if _, err := t.AddClient(t.Public); err != nil {
		return err
	}
	if err := trials.Pause(ctx, 2*time.Second); err != nil { // until it takes its share
		return err
	}
	twice, err := t.Counted("/twice")
	if err != nil {
		return err
	}
	run := filepath.Base(t.Dir)
	s := load.StartSteady(400, func(n int) error { return load.Fresh(t.Visitors(), fmt.Sprintf("/once/%s-%d", run, n)) })
	if err := trials.Pause(ctx, 2*time.Second); err != nil {
		return err
	}
	frozen := t.Clients[0]
	m := t.Meter()
	frozen.Signal(syscall.SIGSTOP)
	stopped := s.Since()
	err = trials.Pause(ctx, 10*time.Second)
	frozen.Signal(syscall.SIGCONT)
	woke := s.Since()
	m.Stop()
	if err != nil {
		return err
	}
	if err := trials.Pause(ctx, 3*time.Second); err != nil {
		return err
	}
	outcomes := s.Stop()
	f := judge(outcomes, stopped, woke)
	t.Bench.Say("failures: %s", failures(outcomes))
	after, err := t.Counted("/twice")
	if err != nil {
		return err
	}
	if f.before > 0 {
		return fmt.Errorf("%d connections failed before the stop", f.before)
	}
	t.Note(freezeLatest, f.latest.Seconds())
	t.Note("connections that failed", float64(f.failed))
	t.Note("connections that did not", float64(f.good))
	t.Note("of them p99 ms", load.Milliseconds(f.times.Quantile(.99)))
	t.Note("slowest of them ms", load.Milliseconds(f.times.Quantile(1)))
	t.Note("failed after it woke", float64(f.woken))
	t.Note(freezeTwice, float64(after-twice))
	return nil
}

// failures counts errors by their last words.
func failures(outcomes []load.Outcome) string {
	counts := map[string]int{}
	for _, o := range outcomes {
		if o.Err != nil {
			text := o.Err.Error()
			counts[text[strings.LastIndex(text, ": ")+1:]]++
		}
	}
	return fmt.Sprint(counts)
}

// frozenFigures is how visitors fared.
type frozenFigures struct {
	before int           // failed before the stop
	failed int           // began before the waking and failed
	woken  int           // began after it and failed
	good   int           // ended after the stop, well
	latest time.Duration // the last of failed began so long after the stop
	times  load.Times    // of good
}

func judge(outcomes []load.Outcome, stopped, woke time.Duration) frozenFigures {
	var f frozenFigures
	for _, o := range outcomes {
		switch {
		case o.Ended < stopped:
			if o.Err != nil {
				f.before++
			}
		case o.Err == nil:
			f.good++
			f.times = append(f.times, o.Ended-o.Began)
		case o.Began >= woke:
			f.woken++
		default:
			f.failed++
			f.latest = max(f.latest, o.Began-stopped)
		}
	}
	return f
}
