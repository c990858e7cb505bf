package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// minPatience is how long a member may leave a request unacknowledged while another one could be asked.
const minPatience = time.Second

// Dial makes a connection to the first member, in the balancer's order, that gives one, and says which it was.
// The caller owns the connection.
//
// Members that are not usable are not tried, those that are suspect after the others.
// A member that fails is followed at once by the next one, but only while it is certain that no visitor byte reached a
// service: a *DialError without MaybeSent certifies that, any other error does not. When nothing is left to try, or
// the context has ended, the last error is returned, as a *DialError.
func (u *Upstream) Dial(ctx context.Context, v *Visit) (Dialed, Member, error) {
	c := u.Candidates()
	for i := range c.Len() {
		m := c.At(i)
		d, err := m.Dial(ctx, c.Visit(v, i))
		if err == nil {
			return d, m, nil
		}
		failed := Failure(m, err)
		u.failed(m, failed.Reason)
		if i == c.Len()-1 || failed.MaybeSent || ctx.Err() != nil {
			return Dialed{}, m, failed
		}
	}
	u.failed(nil, NoMember)
	return Dialed{}, nil, &DialError{Reason: NoMember, Err: fmt.Errorf("upstream %s has no usable member", u.name)}
}

func (u *Upstream) failed(m Member, r Reason) {
	if u.OnFailedDial != nil {
		u.OnFailedDial(m, r)
	}
}

// Visit is the visit as the i-th candidate is to see it: with patience while another candidate is left, without a limit
// of its own for the last. v itself stays as it is, and is given back if it is what the candidate is to see.
func (c Candidates) Visit(v *Visit, i int) *Visit {
	var patience time.Duration
	if i < c.Len()-1 {
		patience = max(v.Patience, minPatience)
	}
	if patience == v.Patience {
		return v
	}
	visit := *v
	visit.Patience = patience
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
