package entrypoint

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"culvert/internal/cidr"
	"culvert/internal/peek"
	"culvert/internal/proxyproto"
)

// The reasons for which a Reception refuses a connection, a bounded set that serves as a metric label.
const (
	RefusedSpoof        = "proxy_spoof"     // a PROXY header of a source that is not trusted
	RefusedNoHeader     = "proxy_missing"   // a trusted source sent something else
	RefusedBadHeader    = "proxy_malformed" // a trusted source sent a header that is wrong, or cut short
	RefusedLateHeader   = "proxy_timeout"   // a trusted source did not send its header in time
	RefusedNoHello      = "no_client_hello" // what came is no TLS ClientHello, or the visitor went before it was whole
	RefusedLateHello    = "client_hello_timeout"
	RefusedWaiting      = "waiting_per_source" // one source has too many connections that are not received yet
	RefusedDisconnected = "disconnected"       // the connection failed before it was received
)

// ProxyPolicy says from whom a PROXY header is expected.
type ProxyPolicy struct {
	// Trusted are the sources that must begin every connection with a header. One of any other source that begins with
	// the signature of a header is refused; nothing of it is parsed or passed on. Empty: no source is trusted.
	Trusted []netip.Prefix
	// Optional lets trusted sources leave the header out, where the visitor speaks first in what is carried.
	Optional bool
}

// Reception finds out who a connection is from and where it wants to go before it is routed: it takes a balancer's PROXY
// header off, looks into a TLS ClientHello, and answers a balancer's probes, which connect and close.
//
// It costs nothing where it is nil. It holds no more than a bounded number of connections of one source, each for a
// bounded time. A connection that it has received is the kernel's own socket still, with nothing in between.
// It is safe for concurrent use and must not be copied.
type Reception struct {
	Proxy *ProxyPolicy // nil: no header is looked for
	// ClientHello has the connection begin with one, which is read and given back. The visitor must then speak first.
	ClientHello bool
	// Allow are the visitors that may connect; empty: all. It stands in place of an entrypoint's list where headers are
	// looked for, because that would be asked about the balancer. A trusted source may always connect for itself.
	Allow []netip.Prefix
	// ProbeSources are balancers that probe by a connection without a byte. Such a connection is answered here, also of
	// a source that sent a LOCAL header.
	ProbeSources []netip.Prefix
	// HeaderTimeout bounds the wait for a whole PROXY header, HelloTimeout that for a whole ClientHello; 5 s if zero.
	HeaderTimeout, HelloTimeout time.Duration
	// MaxWaiting is how many connections of one source (an IPv4 address, an IPv6 /64) may be waited for at a time: 256 if
	// zero, and 4096 from each trusted source, whose connections are those of many visitors.
	MaxWaiting, MaxWaitingTrusted int
	// OnRefused, if set, is called for each connection that is refused, also by a Guard, with one of the reasons above.
	OnRefused func(reason string)

	mu      sync.Mutex
	waiting map[netip.Addr]int
}

// Visitor is a connection that was received.
type Visitor struct {
	Source      netip.AddrPort     // the visitor, as the header tells it if there is one
	Destination netip.AddrPort     // the address that the visitor connected to, likewise
	Via         netip.AddrPort     // the balancer in front, if Source is not the connection's own; else the zero AddrPort
	Header      *proxyproto.Header // nil if there was none
	Host        string             // canonical host of the ClientHello; "" if it names none
	// First is what was read behind a header: the beginning of what the visitor says. It must not be changed.
	First []byte
	// Guard, if not nil, must see what the visitor says before it is passed on, from its first byte (First, if there is
	// any) and all of it each time, until it is certain: more is false. An error means to refuse the visitor.
	Guard func(p []byte) (more bool, err error)
}

// ErrProbe is of a connection that was a balancer's probe. It was answered by having been accepted, and is to be closed.
var ErrProbe = errors.New("probe of a balancer")

// Refusal is why a connection was refused. It has been counted, and is to be reset.
type Refusal struct {
	Reason string // one of the Refused constants
	Err    error
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Reason, r.Err) }
func (r *Refusal) Unwrap() error { return r.Err }

const (
	receptionTimeout  = 5 * time.Second
	maxWaiting        = 256
	maxWaitingTrusted = 4096
	// probePause is how long a probe may stay open in silence before it is taken for a visitor of a service that speaks
	// first, as checks with an expected answer are.
	probePause = 200 * time.Millisecond
)

// Receive reads what is needed to know the visitor. It belongs into the connection's own goroutine, and returns within
// the timeouts. A failure is ErrProbe or a *Refusal; c remains the caller's in any case, and has no deadline.
func (r *Reception) Receive(c *net.TCPConn) (Visitor, error) {
	v := Visitor{Source: addrPortOf(c.RemoteAddr()), Destination: addrPortOf(c.LocalAddr())}
	if r == nil {
		return v, nil
	}
	return r.receive(c, v)
}

// receive is Receive for any connection, of which v tells the two addresses.
func (r *Reception) receive(c net.Conn, v Visitor) (Visitor, error) {
	a := arrival{Reception: r, peer: v.Source.Addr().WithZone(""), visitor: v}
	a.trusted = r.Proxy != nil && cidr.Contain(r.Proxy.Trusted, a.peer)
	a.probing = cidr.Contain(r.ProbeSources, a.peer)
	if r.Proxy != nil && !a.trusted {
		a.visitor.Guard = r.guard
	}
	if !a.trusted && !allowed(r.Allow, a.peer) {
		return Visitor{}, r.notAllowed(a.peer)
	}
	if !a.trusted && !a.probing && !r.ClientHello { // nothing to read
		return a.visitor, nil
	}
	source := cidr.Source(a.peer)
	if !r.enter(source, a.trusted) {
		return Visitor{}, r.refused(RefusedWaiting, errors.New("too many connections of this source wait to be received"))
	}
	defer r.leave(source)
	err := a.receive(c)
	if done := a.reader.Done(); err == nil && done != nil {
		err = r.refused(RefusedDisconnected, done)
	}
	return a.visitor, err
}

// guard is the Guard of sources that are not trusted.
func (r *Reception) guard(p []byte) (more bool, err error) {
	is, maybe := proxyproto.Signature(p)
	if is {
		return false, r.refused(RefusedSpoof, errors.New("PROXY header from a source that is not trusted"))
	}
	return maybe, nil
}

func (r *Reception) refused(reason string, err error) error {
	if r.OnRefused != nil {
		r.OnRefused(reason)
	}
	return &Refusal{reason, err}
}

func (r *Reception) notAllowed(source netip.Addr) error {
	return r.refused(RefusedSource, fmt.Errorf("%s is not allowed", source))
}

func (r *Reception) enter(source netip.Addr, trusted bool) bool {
	limit := cmp.Or(r.MaxWaiting, maxWaiting)
	if trusted {
		limit = cmp.Or(r.MaxWaitingTrusted, maxWaitingTrusted)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[source] >= limit {
		return false
	}
	if r.waiting == nil {
		r.waiting = map[netip.Addr]int{}
	}
	r.waiting[source]++
	return true
}

func (r *Reception) leave(source netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[source]--; r.waiting[source] == 0 {
		delete(r.waiting, source)
	}
}

// arrival is one connection while it is received.
type arrival struct {
	*Reception
	reader           *peek.Reader
	peer             netip.Addr
	trusted, probing bool
	visitor          Visitor
}

func (a *arrival) receive(c net.Conn) error {
	begun := time.Now()
	a.reader = peek.New(c, max(proxyproto.MaxParsed, peek.MaxClientHello))
	if a.trusted {
		if err := a.header(begun.Add(cmp.Or(a.HeaderTimeout, receptionTimeout))); err != nil {
			return err
		}
	}
	var err error
	if a.ClientHello {
		err = a.clientHello(time.Now().Add(cmp.Or(a.HelloTimeout, receptionTimeout)))
	} else if a.probing {
		err = a.probe()
	}
	a.visitor.First = a.reader.Bytes()
	return err
}

// header reads the header that a trusted source owes.
func (a *arrival) header(deadline time.Time) error {
	var h proxyproto.Header
	var size int
	var wrong error
	_, err := a.reader.Until(deadline, func(p []byte) peek.Match {
		var more bool
		h, size, more, wrong = proxyproto.Parse(p)
		switch {
		case more:
			return peek.More
		case wrong != nil:
			return peek.No
		}
		return peek.Yes
	})
	begun := len(a.reader.Bytes()) > 0
	switch {
	case errors.Is(err, peek.ErrTimeout):
		return a.refused(RefusedLateHeader, err)
	case errors.Is(err, peek.ErrEnded) && begun:
		return a.refused(RefusedBadHeader, err)
	case err != nil && !begun: // came and went, as checks do
		return ErrProbe
	case err != nil:
		return a.refused(RefusedDisconnected, err)
	case errors.Is(wrong, proxyproto.ErrNone) && a.Proxy.Optional:
		return nil
	case errors.Is(wrong, proxyproto.ErrNone):
		return a.refused(RefusedNoHeader, wrong)
	case wrong != nil:
		return a.refused(RefusedBadHeader, wrong)
	}
	a.reader.Discard(size)
	a.visitor.Header = &h
	a.probing = a.probing || h.Local
	if h.Real() {
		if !allowed(a.Allow, h.Source.Addr().WithZone("")) {
			return a.notAllowed(h.Source.Addr())
		}
		a.visitor.Via = a.visitor.Source
		a.visitor.Source, a.visitor.Destination = h.Source, h.Destination
	}
	return nil
}

// probe waits for a sign that the connection is more than a probe: a byte, or that it stays open.
func (a *arrival) probe() error {
	_, err := a.reader.Until(time.Now().Add(probePause), func(p []byte) peek.Match {
		if len(p) > 0 {
			return peek.Yes
		}
		return peek.More
	})
	if err == nil || errors.Is(err, peek.ErrTimeout) {
		return nil
	}
	return ErrProbe // it ended, by a close or a reset
}

// clientHello reads the ClientHello with which the visitor must begin.
func (a *arrival) clientHello(deadline time.Time) error {
	var hello peek.Hello
	var spoof error
	match, err := a.reader.Until(deadline, func(p []byte) peek.Match {
		if a.visitor.Guard != nil {
			var more bool
			if more, spoof = a.visitor.Guard(p); spoof != nil {
				return peek.No
			} else if more && len(p) > 0 {
				return peek.More // a header's signature, maybe: no ClientHello begins like one
			}
		}
		return hello.Match(p)
	})
	switch {
	case spoof != nil:
		return spoof
	case errors.Is(err, peek.ErrTimeout):
		return a.refused(RefusedLateHello, err)
	case err != nil && len(a.reader.Bytes()) == 0 && (a.probing || a.trusted):
		return ErrProbe
	case err != nil:
		return a.refused(RefusedNoHello, err)
	case match == peek.No:
		return a.refused(RefusedNoHello, errors.New("not a TLS ClientHello"))
	}
	a.visitor.Host = hello.Host
	a.visitor.Guard = nil // a ClientHello is no header
	return nil
}

// UnknownHost tells the visitor of a ClientHello that nobody serves the host it asks for, by TLS's own alert, and closes
// the connection. It takes a second at most: what the visitor has sent beyond the ClientHello is read, because a close
// before that would be a reset, which may overtake the alert.
func UnknownHost(c net.Conn) {
	defer c.Close()
	if c.SetDeadline(time.Now().Add(time.Second)) != nil {
		return
	}
	if _, err := c.Write(peek.UnrecognizedName()); err != nil {
		return
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, peek.MaxClientHello) // ends with the visitor, who has no reason to stay
	}
}

// addrPortOf is the address of a TCP peer, IPv4 in its plain form; the zero AddrPort for other networks.
func addrPortOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
