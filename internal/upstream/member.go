// Package upstream holds named sets of places to send connections to, tries them in the order of a balancing policy,
// retries on the next one what the first one certainly did not get, and keeps account of how each of them fares.
//
// It is the waist of the data path: a static address, a stream in a client's session and, later, a peer node are all
// Members, and no caller learns which.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"culvert/internal/proxyproto"
	"culvert/internal/udp"
)

// Member is one place that connections can go to. Implementations are comparable by identity and safe for
// concurrent use.
type Member interface {
	// Name tells the member from others of its upstream in logs and status.
	Name() string
	// Protocol is what is spoken on its connections.
	Protocol() Protocol
	// Dial makes a connection for the visit. A failure is a *DialError.
	// The caller owns the connection.
	Dial(ctx context.Context, v *Visit) (Dialed, error)
}

// Revocable is a Member whose right to connections may end while some are kept for reuse.
type Revocable interface {
	Member
	// Permitted is nil while the member may be given connections, old or new.
	Permitted() error
}

// Protocol is what is spoken on a member's connections.
type Protocol uint8

// The protocols of members.
const (
	Raw   Protocol = iota // bytes
	HTTP1                 // HTTP/1.1
	H2C                   // HTTP/2 with prior knowledge
)

// Visit describes one connection that is wanted on a visitor's behalf. It is not changed by a Dial.
type Visit struct {
	ID          string         // the connection's id, the same in the logs of both ends
	Source      netip.AddrPort // the visitor
	Destination netip.AddrPort // the address that the visitor connected to
	Host        string         // canonical host, for HTTP
	First       *First         // the visitor's first bytes; nil if the caller sends them itself
	// Patience is how long a member may leave the request unacknowledged before the dial is given up, so that
	// another one can be tried; zero means until the context ends. It ends no dial that has been acknowledged. An address
	// whose timeout was set keeps that.
	Patience time.Duration
	// Limit bounds one member's whole dial, also of the last one that is left; 0: not at all. It is the Upstream's to
	// keep, a member need not look at it.
	Limit time.Duration
	// Elsewhere says that there is another upstream for the visitor: members that are ejected are not tried for it, it may
	// have the last one ejected, and a client gets none of its bytes before it has accepted.
	Elsewhere bool
	// Proxy is the PROXY header that the visitor's connection came with; nil if it had none.
	Proxy *proxyproto.Header
	// Emit is the PROXY header that the service is to get before anything else. A member with a setting of its own has its
	// own way.
	Emit proxyproto.Emission
	// Datagrams asks for a connection of which one Read or Write is one datagram, empty ones too. Its Write never waits:
	// what cannot go at once is dropped, with udp.ErrDropped. First is not used.
	Datagrams bool
	// Poller, if set, may make that connection, which is an Attended then and cannot be read.
	Poller *udp.Poller
}

// Attended is a connection whose datagrams are handed over, one after the other, with no goroutine of its own. p may not be
// kept. Attend is called once, and whatever it calls must not wait.
type Attended interface {
	Attend(handle func(p []byte, err error)) error
}

// header is the PROXY header that the service gets; empty if it is to get none.
func (v *Visit) header(e proxyproto.Emission) []byte {
	if e.Version == proxyproto.Off {
		e = v.Emit
	}
	if e.Version == proxyproto.Off {
		return nil
	}
	return e.Header(v.Source, v.Destination, v.ID, v.Host, v.Proxy).AppendTo(make([]byte, 0, 256), e.Version)
}

// datagramHeader is the PROXY header that the service gets in front of a flow's datagrams. Version 1 knows no datagrams.
func (v *Visit) datagramHeader(e proxyproto.Emission) (header []byte, first bool) {
	if e.Version == proxyproto.Off {
		e = v.Emit
	}
	if e.Version == proxyproto.Off {
		return nil, false
	}
	if !v.Source.IsValid() { // a connection for many visitors
		return nil, false
	}
	e.Version = proxyproto.V2
	h := e.Header(v.Source, v.Destination, v.ID, v.Host, v.Proxy)
	h.Transport = proxyproto.UDP
	return h.AppendTo(nil, proxyproto.V2), e.FirstDatagram
}

// Dialed is a connection made. A member sets the first two fields only, an Upstream's Dial all of them.
type Dialed struct {
	Conn      Conn
	FirstSent bool          // the member has sent all of Visit.First's bytes already
	Place     *Place        // to be released when the connection is over
	Queued    time.Duration // waited until a member had room
	Connect   time.Duration // what the last member took
	Tries     []Try         // the members before it, that gave none
}

// Try is a dial that failed.
type Try struct {
	Member string
	Reason Reason
	Took   time.Duration
	Route  string // by which it was tried; for a caller who has several to note
}

// Conn is a connection whose directions close apart, and which can be aborted.
// Close after CloseWrite and a read of EOF is an orderly end.
type Conn interface {
	net.Conn
	// CloseWrite ends what this side sends; the peer reads EOF.
	CloseWrite() error
	// Reset aborts both directions; the peer reads an error, never a clean EOF.
	Reset() error
}

// Reason says why a dial failed, from a bounded set that serves as a metric label.
type Reason string

// The reasons of a failed dial.
const (
	Refused      Reason = "refused"        // the service beside the member refused the connection
	Unreachable  Reason = "unreachable"    // the service could not be reached: no route, no such host
	TimedOut     Reason = "timeout"        // no answer in time
	NoSuchTunnel Reason = "no_such_tunnel" // the member does not know the tunnel any more
	Overloaded   Reason = "overloaded"     // the member has too many connections
	NotAllowed   Reason = "not_allowed"    // the member's credential does not cover it (any more)
	Lost         Reason = "lost"           // the session was lost meanwhile
	NoMember     Reason = "no_member"      // the upstream is empty
	NoRoute      Reason = "no_route"       // no route takes the visitor
	Canceled     Reason = "canceled"       // the visitor went away
	QueueFull    Reason = "queue_full"     // all members have as many connections as they may, and enough visitors wait
	QueueTimeout Reason = "queue_timeout"  // no member had room in time
	Ejected      Reason = "ejected"        // all members are ejected, and there is another upstream for the visitor
)

// DialError is a failed dial.
type DialError struct {
	Member string
	Reason Reason
	// MaybeSent means that visitor bytes may have reached a service: no other member may be tried.
	MaybeSent bool
	Err       error
	Tries     []Try         // of an Upstream's Dial: all that failed, the last one too
	Queued    time.Duration // of an Upstream's Dial or Admit: waited until a member had room, or in vain
}

func (e *DialError) Error() string {
	if e.Member == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %s", e.Member, e.Err)
}

func (e *DialError) Unwrap() error { return e.Err }

// ReasonOf is the reason of a dial's error.
func ReasonOf(err error) Reason {
	var d *DialError
	switch {
	case errors.As(err, &d):
		return d.Reason
	case errors.Is(err, context.Canceled):
		return Canceled
	default:
		return TimedOut
	}
}
