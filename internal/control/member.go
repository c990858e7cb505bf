package control

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// member is one client's place in one tunnel: its connections are streams of the client's session.
type member struct {
	session  *session
	tunnel   tunnel.Name
	action   auth.Action // what the credential must permit
	protocol upstream.Protocol
	down     atomic.Bool // the client's check of the service says so
}

func (m *member) Name() string                { return m.session.hello.ID + "/" + m.session.hello.Instance }
func (m *member) Protocol() upstream.Protocol { return m.protocol }

// Permitted implements upstream.Revocable: the credential is asked anew each time.
func (m *member) Permitted() error { return m.session.bearer.Permit(m.action) }

// openTimeout bounds a whole open: the client's own dial has 5 s.
const openTimeout = 10 * time.Second

// Usable says that the client is within reach and its service not known to be down.
func (m *member) Usable() bool { return !m.down.Load() && m.session.tunnel.Live() > 0 }

// Paused is closed while the client is out of reach.
func (m *member) Paused() <-chan struct{} { return m.session.tunnel.Paused() }

// Suspect says that the client owes an answer: others are to be tried first.
func (m *member) Suspect() bool { return m.session.tunnel.Suspect() }

// Dial opens a stream in the client's session and waits for the client's decision. The visitor's first bytes follow the
// open at once if the client was heard just now, else once it has the open. They count as maybe sent from then on, unless
// the client certifies that it refused.
func (m *member) Dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	if err := m.Permitted(); err != nil {
		return upstream.Dialed{}, m.failed(upstream.NotAllowed, false, err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	o := opening{early: m.session.tunnel.Fresh()}
	if !v.Elsewhere { // else they wait for the decision, so that a failure always leaves the visit to others
		o.first = v.First
	}
	var err error
	o.Stream, err = m.session.tunnel.Open(ctx, m.open(v))
	if err != nil {
		return upstream.Dialed{}, m.failed(reasonOf(err), false, err)
	}
	if v.Datagrams && o.early && v.Patience == 0 { // nobody else could be asked: the decision need not be waited for
		return upstream.Dialed{Conn: &flow{udp.NewFramed(o.Stream), m}}, nil
	}
	if v.Patience > 0 { // there is another member to try
		timer := time.NewTimer(m.patience(v.Patience))
		defer timer.Stop()
		o.impatient, o.paused = timer.C, m.session.tunnel.Paused()
	}
	if err := o.decide(ctx); err != nil {
		_ = o.Reset()
		return upstream.Dialed{}, m.failed(reasonOf(err), o.sent && !certified(err), err)
	}
	if v.Datagrams {
		return upstream.Dialed{Conn: &flow{udp.NewFramed(o.Stream), m}}, nil
	}
	return upstream.Dialed{Conn: o.Stream, FirstSent: o.sent}, nil
}

// flow is a stream of datagrams, on which the client may not have decided yet: its first read tells.
type flow struct {
	*udp.Framed
	member *member
}

func (f *flow) Next() ([]byte, error) {
	p, err := f.Framed.Next()
	var refusal *mux.Refusal
	if errors.As(err, &refusal) {
		err = f.member.failed(reasonOf(err), false, err)
	}
	return p, err
}

// maxAuthority is the most bytes of a host name.
const maxAuthority = 255

// open is what the client is told of the visit.
func (m *member) open(v *upstream.Visit) tunnel.Open {
	o := tunnel.Open{
		Tunnel: m.tunnel, ID: v.ID, Source: v.Source, Destination: v.Destination, Host: v.Host, ProxyProtocol: v.Emit,
		Datagrams: v.Datagrams,
	}
	if v.Proxy == nil || v.Emit.Version != proxyproto.V2 {
		return o
	}
	// What is longer than either may be is a balancer's mistake, and would not fit an open.
	if host, ok := v.Proxy.TLV(proxyproto.TypeAuthority); ok && v.Emit.Authority && len(host) <= maxAuthority {
		o.Host = string(host)
	}
	if id, ok := v.Proxy.TLV(proxyproto.TypeUniqueID); ok && v.Emit.UniqueID && len(id) <= proxyproto.MaxUniqueID {
		o.UniqueID = string(id)
	}
	return o
}

// patience gives a client behind a long path the time of four round trips.
func (m *member) patience(least time.Duration) time.Duration {
	return max(least, 4*m.session.tunnel.RTT())
}

// opening is a stream that the client has not decided on.
type opening struct {
	*mux.Stream
	first *upstream.First // nil if there is none
	early bool            // the first bytes need not wait until the client has the open

	// Of a visit that another member can take, while none of its bytes is sent; nil otherwise.
	impatient <-chan time.Time
	paused    <-chan struct{}

	sent bool // the visitor's first bytes are on their way
}

var (
	errUnacknowledged = fmt.Errorf("client did not acknowledge the connection: %w", context.DeadlineExceeded)
	errPaused         = fmt.Errorf("%w: client is out of reach", mux.ErrLost)
)

// decide waits for the client's decision, and sends the first bytes when they may go.
func (o *opening) decide(ctx context.Context) error {
	received := o.Received()
	var ready <-chan struct{}
	if o.early {
		ready = o.ready()
	}
	for {
		select {
		case <-o.Decided():
			return o.Result(ctx)
		case <-received:
			received, o.impatient = nil, nil
			if !o.early {
				ready = o.ready()
			}
		case <-ready:
			ready = nil
			if err := o.send(ctx); err != nil {
				return err
			}
		case <-o.impatient:
			return errUnacknowledged
		case <-o.paused:
			return errPaused
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o *opening) ready() <-chan struct{} {
	if o.first == nil {
		return nil
	}
	return o.first.Ready()
}

// send passes the visitor's first bytes on. From then on no other member can take the visit.
func (o *opening) send(ctx context.Context) error {
	p, _ := o.first.Bytes()
	if len(p) == 0 {
		return nil
	}
	select {
	case <-o.Decided(): // it was refused meanwhile, or is open and the relay sends them
		return nil
	default:
	}
	o.sent, o.impatient, o.paused = true, nil, nil
	if _, err := o.Write(p); err != nil {
		if result := o.Result(ctx); result != nil {
			return result // a refusal certifies
		}
		return err // accepted, and without its beginning
	}
	return nil
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
