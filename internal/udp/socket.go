package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// bufferSize is what the kernel is asked to keep for a socket until it is read: with its default, half a second's burst of
// many small datagrams is lost.
const bufferSize = 4 << 20

// Socket is a socket that strangers send to. One goroutine receives; any may send.
type Socket struct {
	conn     *net.UDPConn
	local    netip.AddrPort
	wildcard bool // it has many addresses: each answer says which one it leaves from
	raw      syscall.RawConn
	batching
}

// New makes a Socket of one that is bound, and owns it. It closes what it cannot use.
func New(conn net.PacketConn) (*Socket, error) {
	u, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("listen %s: a %T is not a UDP socket", conn.LocalAddr(), conn)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		_ = u.Close()
		return nil, fmt.Errorf("listen %s: %w", u.LocalAddr(), err)
	}
	local := u.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &Socket{conn: u, local: local, wildcard: local.Addr().Unmap().IsUnspecified(), raw: raw}
	_ = u.SetReadBuffer(bufferSize) // best effort: the system has limits of its own
	_ = u.SetWriteBuffer(bufferSize)
	forceBuffers(raw)
	if s.wildcard {
		if err := tellDestination(raw, local.Addr()); err != nil {
			_ = u.Close()
			return nil, fmt.Errorf("listen %s: have the kernel tell each datagram's destination: %w", local, err)
		}
	}
	return s, nil
}

// LocalAddr is what the socket is bound to.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// Close closes the socket, which ends a Receive.
func (s *Socket) Close() error { return s.conn.Close() }

// SetReadDeadline makes Receive fail from t on; the zero time means never.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// passing says whether an error of a receive is of one datagram, not of the socket: an ICMP error for an answer of ours,
// or a shortage.
func passing(err error) bool {
	for _, e := range []error{
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EMSGSIZE, syscall.ECONNRESET,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
