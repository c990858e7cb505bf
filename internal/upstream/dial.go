package upstream

import (
	"context"
	"errors"
	"time"

	"culvert/internal/proxyproto"
)

// minPatience is how long a member may leave a request unacknowledged while another one could be asked.
const minPatience = time.Second

// Dial makes a connection to the first member, in the policy's order, that gives one. The caller owns the connection, and
// releases the place when it is over.
//
// Members that are not usable are not tried, those that are suspect after the others. While all members have as many
// connections as they may the visitor waits in the upstream's queue, if that has room.
//
// A member that fails is followed at once by the next one, as often as the configuration has it, but only while it is
// certain that no visitor byte reached a service: a *DialError without MaybeSent certifies that, any other error does
// not. When nothing is left to try, or the context has ended, the last error is returned, as a *DialError.
func (u *Upstream) Dial(ctx context.Context, v *Visit) (Dialed, error) {
	var a Admitted
	if err := u.admit(ctx, v, &a); err != nil {
		return Dialed{}, err
	}
	c, place, at := &a.Candidates, a.Place, a.At
	var tries []Try
	for {
		m, begun := place.Member(), time.Now()
		d, err := dial(ctx, m, c.Visit(v, len(tries)))
		if err == nil {
			place.Report(nil)
			d.Place, d.Queued, d.Connect, d.Tries = place, a.Queued, time.Since(begun), tries
			return d, nil
		}
		failed := *Failure(m, err)
		if failed.Reason != Canceled {
			place.Report(&failed)
		}
		u.failed(m, failed.Reason)
		place.Release()
		tries = append(tries, Try{Member: m.Name(), Reason: failed.Reason, Took: time.Since(begun)})
		failed.Tries, failed.Queued = tries, a.Queued
		if failed.MaybeSent || ctx.Err() != nil || len(tries) >= c.Tries() {
			return Dialed{}, &failed
		}
		if place, at = c.Claim(at + 1); place == nil {
			return Dialed{}, &failed
		}
	}
}

// dial asks one member, within the visit's limit.
func dial(ctx context.Context, m Member, v *Visit) (Dialed, error) {
	if v.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.Limit)
		defer cancel()
	}
	return m.Dial(ctx, v)
}

func (u *Upstream) failed(m Member, r Reason) {
	if f := u.cfg.Load().OnFailedDial; f != nil {
		f(m, r)
	}
}

// Visit is the visit as a member is to see it when n others have been tried: with patience while another one may be
// tried, here or elsewhere, without more than its limit for the last, and with the PROXY header that the upstream's services
// get. v itself stays as it is, and is given back if it is what the member is to see.
func (c *Candidates) Visit(v *Visit, n int) *Visit {
	patience := v.Limit
	if n < c.tries-1 || v.Elsewhere {
		patience = max(v.Patience, minPatience)
	}
	emit := v.Emit
	if own := c.upstream.cfg.Load().Emit; own.Version != proxyproto.Off {
		emit = own
	}
	if patience == v.Patience && emit == v.Emit {
		return v
	}
	visit := *v
	visit.Patience, visit.Emit = patience, emit
	return &visit
}

// Failure is the failure of m's Dial as a *DialError. An error of another kind certifies nothing, so it counts as
// MaybeSent.
func Failure(m Member, err error) *DialError {
	var d *DialError
	if errors.As(err, &d) {
		return d
	}
	return &DialError{Member: m.Name(), Reason: ReasonOf(err), MaybeSent: true, Err: err}
}
