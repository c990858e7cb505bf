package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// DivertConfig is what a divert needs.
type DivertConfig struct {
	Client Config // how to reach the server; its Upstreams and its Watch are made here
	Wish   tunnel.Diversion
	Target Upstream // where the traffic goes, but for the tunnel
	// Report is told what happens, in turn.
	Report func(DivertEvent)
}

// DivertEvent is something that happens to a divert: exactly one field is set.
type DivertEvent struct {
	Begun  *DivertBegun
	Opened *tunnel.Open // a connection or flow comes
	// Unserved is how the target did not take one that came, in words that follow its name: its visitor goes the other ways,
	// unless the wish has it fail.
	Unserved string
	Lost     error // the server is out of reach: its visitors go the other ways until it is back
	Back     bool  // it is
}

// DivertBegun is a divert that the server has accepted.
type DivertBegun struct {
	ID    string
	Until time.Time
}

// ErrTimeOver is the end of a divert that has had its time.
var ErrTimeOver = errors.New("its time is over")

// endGrace is how much later than the server the client ends a divert, so that the server can say that its time is over.
const endGrace = time.Second

// divert is a divert while it runs.
type divert struct {
	cfg    DivertConfig
	id     string
	end    context.CancelCauseFunc
	report sync.Mutex // one event at a time; guards what follows

	timer *time.Timer // since the server's first yes
	lost  bool
}

// Divert has live traffic of a server come to the target until its time is over, which gives ErrTimeOver, or the context ends,
// which is no error. A server that refuses or ends the divert, or that cannot be reached at the start, is one; a server that is
// lost later is waited for.
// Connections that are open at the end may go on for Config.Drain.
func Divert(ctx context.Context, cfg DivertConfig) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	d := &divert{cfg: cfg, id: randomID()[:8], end: end}
	target := cfg.Target
	target.Tunnel, target.Divert = tunnel.DivertName(d.id), &cfg.Wish
	cc := cfg.Client
	cc.Upstreams = []Upstream{target}
	cc.Watch = Watch{Answered: d.answered, Ended: d.ended, Opened: d.opened, Unserved: d.unserved, Failed: d.failed}
	c, err := New(cc)
	if err != nil {
		return err
	}
	err = c.Run(ctx)
	d.report.Lock()
	defer d.report.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	switch cause := context.Cause(ctx); {
	case err != nil:
		return err
	case errors.Is(cause, context.Canceled):
		return nil
	default:
		return cause
	}
}

func (d *divert) answered(a tunnel.Answer) {
	d.report.Lock()
	defer d.report.Unlock()
	switch {
	case a.Refused != "":
		d.end(fmt.Errorf("the server refuses the divert: %s", a.Refused))
	case d.timer == nil:
		d.timer = time.AfterFunc(d.cfg.Wish.For+endGrace, func() { d.end(ErrTimeOver) })
		d.cfg.Report(DivertEvent{Begun: &DivertBegun{ID: d.id, Until: time.Now().Add(d.cfg.Wish.For)}})
	case d.lost:
		d.lost = false
		d.cfg.Report(DivertEvent{Back: true})
	}
}

func (d *divert) ended(e tunnel.Ended) {
	if e.Over {
		d.end(ErrTimeOver)
		return
	}
	d.end(fmt.Errorf("the server has ended the divert: %s", e.Reason))
}

func (d *divert) opened(o *tunnel.Open) {
	d.report.Lock()
	defer d.report.Unlock()
	d.cfg.Report(DivertEvent{Opened: o})
}

func (d *divert) unserved(why upstream.Reason) {
	d.report.Lock()
	defer d.report.Unlock()
	words := "gives no connection (" + string(why) + ")"
	switch why {
	case upstream.Refused:
		words = "refuses connections"
	case upstream.TimedOut:
		words = "does not answer"
	}
	d.cfg.Report(DivertEvent{Unserved: words})
}

func (d *divert) failed(err error) {
	d.report.Lock()
	defer d.report.Unlock()
	var gone *tunnel.GoAway
	if d.timer == nil || errors.As(err, &gone) && gone.Reason == tunnel.Revoked || unauthorized(err) {
		d.end(err) // it will not come right by itself, or the operator had better know
		return
	}
	if !d.lost {
		d.lost = true
		d.cfg.Report(DivertEvent{Lost: err})
	}
}
