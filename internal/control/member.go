package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// member is one client's place in one tunnel: its connections are streams of the client's session.
type member struct {
	session  *session
	tunnel   tunnel.Name
	action   auth.Action // what the credential must permit
	protocol upstream.Protocol
}

func (m *member) Name() string                { return m.session.hello.ID + "/" + m.session.hello.Instance }
func (m *member) Protocol() upstream.Protocol { return m.protocol }

// Permitted implements upstream.Revocable: the credential is asked anew each time.
func (m *member) Permitted() error { return m.session.bearer.Permit(m.action) }

// openTimeout bounds a whole open: the client's own dial has 5 s.
const openTimeout = 10 * time.Second

// Dial opens a stream in the client's session and waits for the client's decision. The visitor's first bytes follow
// once the client has the open, and count as maybe sent from then on, unless the client certifies that it refused.
func (m *member) Dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	if err := m.Permitted(); err != nil {
		return upstream.Dialed{}, m.failed(upstream.NotAllowed, false, err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	st, err := m.open(ctx, v)
	if err != nil {
		return upstream.Dialed{}, err
	}
	o := opening{Stream: st}
	if err := o.decide(ctx, v.First); err != nil {
		_ = st.Reset()
		return upstream.Dialed{}, m.failed(reasonOf(err), o.sent && !certified(err), err)
	}
	return upstream.Dialed{Conn: st, FirstSent: o.sent}, nil
}

// open sends the open and waits until the client has it, for as long as the visit is patient.
func (m *member) open(ctx context.Context, v *upstream.Visit) (*mux.Stream, error) {
	if v.Patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.patience(v.Patience))
		defer cancel()
	}
	st, err := m.session.tunnel.Open(ctx, tunnel.Open{
		Tunnel: m.tunnel, ID: v.ID, Source: v.Source, Destination: v.Destination, Host: v.Host,
	})
	if err != nil {
		return nil, m.failed(reasonOf(err), false, err)
	}
	select {
	case <-st.Received():
		return st, nil
	case <-st.Decided(): // refused or lost in the same breath
		return st, nil
	case <-ctx.Done():
		_ = st.Reset()
		return nil, m.failed(reasonOf(ctx.Err()), false, fmt.Errorf("client did not acknowledge the connection: %w", ctx.Err()))
	}
}

// patience gives a client behind a long path the time of four round trips.
func (m *member) patience(least time.Duration) time.Duration {
	return max(least, 4*m.session.tunnel.RTT())
}

// opening is a stream that the client knows of and has not decided on.
type opening struct {
	*mux.Stream
	sent bool // the visitor's first bytes are on their way
}

func (o *opening) decide(ctx context.Context, first *upstream.First) error {
	var ready <-chan struct{}
	if first != nil {
		ready = first.Ready()
	}
	for {
		select {
		case <-o.Decided():
			return o.Result(ctx)
		case <-ctx.Done():
			return ctx.Err()
		case <-ready:
			ready = nil
			if err := o.send(ctx, first); err != nil {
				if result := o.Result(ctx); result != nil {
					return result // a refusal certifies
				}
				return err // accepted, and without its beginning
			}
		}
	}
}

// send passes the visitor's first bytes on.
func (o *opening) send(ctx context.Context, first *upstream.First) error {
	p, _ := first.Bytes()
	if len(p) == 0 {
		return nil
	}
	select {
	case <-o.Decided(): // it was refused meanwhile, or is open and the relay sends them
		return nil
	default:
	}
	o.sent = true
	stop := context.AfterFunc(ctx, func() { _ = o.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := o.Write(p)
	if !stop() && err == nil {
		return ctx.Err() // the deadline that it set is for good
	}
	return err
}

func (m *member) failed(reason upstream.Reason, maybeSent bool, err error) error {
	return &upstream.DialError{Member: m.Name(), Reason: reason, MaybeSent: maybeSent, Err: err}
}

// certified says whether the error is the client's own word that nothing reached the service.
func certified(err error) bool {
	var refusal *mux.Refusal
	return errors.As(err, &refusal)
}

func reasonOf(err error) upstream.Reason {
	var refusal *mux.Refusal
	switch {
	case errors.As(err, &refusal):
		return reasons[tunnel.Reason(refusal.Code)] // a code of a later version is "" and counts as such
	case errors.Is(err, context.DeadlineExceeded):
		return upstream.TimedOut
	case errors.Is(err, context.Canceled):
		return upstream.Canceled
	default:
		return upstream.Lost
	}
}

var reasons = map[tunnel.Reason]upstream.Reason{
	tunnel.Refused:      upstream.Refused,
	tunnel.Unreachable:  upstream.Unreachable,
	tunnel.NoSuchTunnel: upstream.NoSuchTunnel,
	tunnel.Overloaded:   upstream.Overloaded,
	tunnel.NotAllowed:   upstream.NotAllowed,
	tunnel.TimedOut:     upstream.TimedOut,
	tunnel.GoingAway:    upstream.Unreachable,
}
