// Package app assembles servers and clients out of their parts, starts them in order and stops them in reverse.
//
// A Server or Client opens nothing until Listen or Run, and leaves no goroutine, socket or file behind when Run
// returns.
package app

import (
	"context"
	"log/slog"
	"time"
)

// Version is what the running program is.
type Version struct {
	Version string // "0.1.0", or "dev"
	SHA     string // revision, or "unknown"
}

func (v Version) String() string { return v.Version + " - " + v.SHA }

// subsystem is the attribute that says which part a line of the log comes from, and by which --log-level chooses.
const subsystem = "subsystem"

// step is one part of an orderly end.
type step struct {
	name string
	// within is what the step may take; one that takes longer is named in the log and left behind.
	within time.Duration
	do     func(context.Context)
}

// wind runs the steps of an end in order.
func wind(log *slog.Logger, steps []step) {
	for _, s := range steps {
		ctx, cancel := context.WithTimeout(context.Background(), s.within)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.do(ctx)
		}()
		hung := time.NewTimer(s.within + stepSlack)
		select {
		case <-done:
		case <-hung.C:
			log.Error("shutdown step hangs, going on without it", "step", s.name, "after", s.within+stepSlack)
		}
		hung.Stop()
		cancel()
	}
}

// stepSlack is what a step gets to abort after its context has ended.
const stepSlack = 5 * time.Second
