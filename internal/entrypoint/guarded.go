package entrypoint

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Admit says that the other end of c has shown a credential: c no longer counts and its deadline is lifted. c is a
// connection that a Guard gave, or one around it that has a NetConn method, as *tls.Conn does. Others are left alone.
// It may be called more than once, by any goroutine.
func Admit(c net.Conn) {
	for c != nil {
		if g, ok := c.(*guarded); ok {
			g.admit()
			return
		}
		under, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		c = under.NetConn()
	}
}

// guarded is a connection that a guard watches until it is admitted or closed.
type guarded struct {
	net.Conn
	head
	guard  *Guard
	source netip.Addr
	leave  sync.Once

	mu       sync.Mutex
	limit    time.Time // no deadline is later; zero once admitted
	readEnd  time.Time // the deadlines that were asked for, zero for none
	writeEnd time.Time
}

func newGuarded(c net.Conn, g *Guard, source netip.Addr) *guarded {
	limit := time.Now().Add(g.cfg.Deadline)
	_ = c.SetDeadline(limit) // fails only if it is closed already
	return &guarded{Conn: c, guard: g, source: source, limit: limit}
}

// NetConn is the connection underneath, for socket options. A deadline set on it is not the guard's.
func (g *guarded) NetConn() net.Conn { return g.Conn }

// SyscallConn gives the descriptor for reading when something is there. The guard's deadline holds for that, too.
func (g *guarded) SyscallConn() (syscall.RawConn, error) {
	sc, ok := g.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

func (g *guarded) admit() {
	g.mu.Lock()
	if !g.limit.IsZero() {
		g.limit = time.Time{}
		_ = g.Conn.SetReadDeadline(g.readEnd)
		_ = g.Conn.SetWriteDeadline(g.writeEnd)
	}
	g.mu.Unlock()
	g.left()
}

func (g *guarded) left() {
	g.leave.Do(func() { g.guard.leave(g.source) })
}

// Close closes the connection, which then no longer counts.
func (g *guarded) Close() error {
	err := g.Conn.Close()
	g.left()
	return err
}

// SetDeadline sets both deadlines, as far as the guard lets it.
func (g *guarded) SetDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readEnd, g.writeEnd = t, t
	return g.Conn.SetDeadline(g.within(t))
}

// SetReadDeadline sets the deadline of reads, as far as the guard lets it.
func (g *guarded) SetReadDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readEnd = t
	return g.Conn.SetReadDeadline(g.within(t))
}

// SetWriteDeadline sets the deadline of writes, as far as the guard lets it.
func (g *guarded) SetWriteDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writeEnd = t
	return g.Conn.SetWriteDeadline(g.within(t))
}

func (g *guarded) within(t time.Time) time.Time {
	if !g.limit.IsZero() && (t.IsZero() || t.After(g.limit)) {
		return g.limit
	}
	return t
}
