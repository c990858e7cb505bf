// Package entrypoint accepts connections on a configured address and hands them over.
//
// Sources that are not allowed are closed at once and counted; nothing of what they send is read. A listener survives a
// shortage of descriptors. Only the constructors open anything. What a connection carries and where it goes is not decided
// here.
package entrypoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"culvert/internal/cidr"
)

// The reasons for which connections are refused, a bounded set that serves as a metric label.
const (
	RefusedSource    = "source"     // its address is not allowed
	RefusedTooMany   = "too_many"   // the limit of connections is reached
	RefusedPerSource = "per_source" // the limit of connections from one source is reached
)

// listener is a TCP listener that gives only those connections that are wanted.
type listener struct {
	tcp     *net.TCPListener
	allow   atomic.Pointer[[]netip.Prefix] // empty: all
	turn    <-chan struct{}                // closed when connections may be accepted; nil: they may
	log     *slog.Logger
	refused func(reason string)

	open   atomic.Int64
	short  rate.Sometimes // tells of a shortage
	closed chan struct{}
	close  sync.Once
}

// Sockets opens sockets, or has some that another process has left to this one. What it gives is the caller's.
type Sockets interface {
	Listen(lc net.ListenConfig, network, address string) (net.Listener, error)
	ListenPacket(lc net.ListenConfig, network, address string) (net.PacketConn, error)
	// Settled waits while the other two would wait, because this process is being replaced: for those who call them with a
	// lock held.
	Settled()
}

// opened opens new ones.
type opened struct{}

func (opened) Listen(lc net.ListenConfig, network, address string) (net.Listener, error) {
	return lc.Listen(context.Background(), network, address)
}

func (opened) ListenPacket(lc net.ListenConfig, network, address string) (net.PacketConn, error) {
	return lc.ListenPacket(context.Background(), network, address)
}

func (opened) Settled() {}

// Inheritance is what an entrypoint may take over from another process, whose place this one takes. The zero value is
// nothing.
type Inheritance struct {
	Sockets Sockets         // nil: sockets are opened
	Turn    <-chan struct{} // closed when connections are to be accepted, and datagrams read; nil: at once
}

// From is where sockets come from.
func (i Inheritance) From() Sockets {
	if i.Sockets == nil {
		return opened{}
	}
	return i.Sockets
}

// listening is what a listener needs.
type listening struct {
	addr    string
	allow   []netip.Prefix // empty: all
	inherit Inheritance
	log     *slog.Logger
	refused func(string)
}

func listen(cfg listening) (*listener, error) {
	var lc net.ListenConfig
	// A multipath socket costs more than a plain one and tells less of resets.
	lc.SetMultipathTCP(false)
	inheritKeepAlive(&lc)
	ln, err := cfg.inherit.From().Listen(lc, "tcp", cfg.addr)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", cfg.addr, err)
	}
	l := &listener{
		tcp: ln.(*net.TCPListener), turn: cfg.inherit.Turn, refused: cfg.refused,
		closed: make(chan struct{}), short: rate.Sometimes{Interval: time.Minute}, log: cfg.log.With("entrypoint", ln.Addr().String()),
	}
	l.allow.Store(&cfg.allow)
	return l, nil
}

// accept gives the next connection that is wanted; release must be called when it is closed. It waits out a shortage
// of descriptors or memory. After Close it gives net.ErrClosed.
func (l *listener) accept() (*net.TCPConn, error) {
	if !l.mayAccept() {
		return nil, fmt.Errorf("accept on %s: %w", l.tcp.Addr(), net.ErrClosed)
	}
	for delay := time.Duration(0); ; {
		c, err := l.tcp.AcceptTCP()
		switch {
		case err == nil:
			delay = 0
			if reason := l.refusal(c.RemoteAddr()); reason != "" {
				l.refuse(c, reason)
				continue
			}
			return c, nil
		case !passing(err):
			return nil, fmt.Errorf("accept on %s: %w", l.tcp.Addr(), err)
		}
		delay = nextDelay(delay)
		l.short.Do(func() { l.log.Warn("connections wait to be accepted", "err", err) })
		if !l.wait(delay) {
			return nil, fmt.Errorf("accept on %s: %w", l.tcp.Addr(), net.ErrClosed)
		}
	}
}

// mayAccept waits for this process's turn and says whether the listener is still open.
func (l *listener) mayAccept() bool {
	if l.turn == nil {
		return true
	}
	select {
	case <-l.turn:
		return true
	default: // of the two below, chance picks if both are ready
	}
	select {
	case <-l.turn:
		return true
	case <-l.closed:
		return false
	}
}

const (
	firstDelay = 5 * time.Millisecond
	lastDelay  = time.Second
)

func nextDelay(d time.Duration) time.Duration { return min(max(2*d, firstDelay), lastDelay) }

// wait waits for d and says whether the listener is still open.
func (l *listener) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.closed:
		return false
	}
}

// refusal counts the connection as open, or says why it is not wanted.
func (l *listener) refusal(source net.Addr) string {
	if !allowed(*l.allow.Load(), sourceOf(source)) {
		return RefusedSource
	}
	l.open.Add(1)
	return ""
}

func (l *listener) release() { l.open.Add(-1) }

func (l *listener) refuse(c *net.TCPConn, reason string) {
	drop(c)
	l.report(c.RemoteAddr(), reason)
}

func (l *listener) report(source net.Addr, reason string) {
	l.log.Debug("connection refused", "source", source, "reason", reason)
	if l.refused != nil {
		l.refused(reason)
	}
}

// Close stops accepting. It may be called more than once.
func (l *listener) Close() error {
	var err error
	l.close.Do(func() {
		close(l.closed)
		err = l.tcp.Close()
	})
	return err
}

// drop closes a connection at once, without a state of it left in the kernel.
func drop(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // fails only if it is closed already
	}
	_ = c.Close()
}

// passing says whether an error of accept goes away by itself: too few descriptors or too little memory, which ENOSPC is that
// of what a user may have the kernel watch (fs.epoll.max_user_watches).
func passing(err error) bool {
	switch {
	case errors.Is(err, net.ErrClosed):
		return false
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOSPC):
		return true
	}
	var e interface{ Temporary() bool }
	return errors.As(err, &e) && e.Temporary()
}

func allowed(allow []netip.Prefix, source netip.Addr) bool {
	return len(allow) == 0 || cidr.Contain(allow, source)
}

// sourceOf is the address of a TCP peer, IPv4 in its plain form and without a zone; the zero Addr for other networks.
func sourceOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap().WithZone("")
}
