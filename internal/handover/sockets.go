// Package handover passes listening sockets from a process to the one that takes its place, so that no connection is
// refused or reset while a program is replaced by another version of itself. It takes them from systemd, too.
//
// The sockets stay open throughout: both processes have them, and what waits in the kernel is accepted by either. What is
// handed over is the right to accept, never a connection: those that are open stay with the old process to their end.
package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Sockets opens listening sockets, or gives those that another process has passed on. A nil *Sockets opens them and does
// nothing else. Its methods are safe for concurrent use.
type Sockets struct {
	log  *slog.Logger
	from *predecessor // nil if the process was started by other means
	turn chan struct{}
	hold time.Duration // how long Run keeps what nobody claims

	mu        sync.Mutex
	unclaimed []*socket
	open      []*socket
	upgrading chan struct{} // closed when the upgrade that runs has ended; nil if none runs
	replaced  bool          // another process has taken over
}

// socket is one that listens, or receives datagrams.
type socket struct {
	Network string `json:"network"` // "tcp", "udp" or "unix"
	Address string `json:"address"` // as it was asked for
	Name    string `json:"name,omitempty"`

	held   holder
	actual netip.AddrPort // the zero value in the file system
	dual   bool           // IPv6 that takes IPv4 too
}

// holder is a net.Listener or net.PacketConn on a descriptor.
type holder interface {
	syscall.Conn
	Close() error
}

// New gives Sockets without any that were inherited.
func New(log *slog.Logger) *Sockets {
	s := &Sockets{log: log, turn: make(chan struct{}), hold: claimTime}
	close(s.turn)
	return s
}

// ErrReplaced is of a process that opens no more sockets, because another has taken its place.
var ErrReplaced = errors.New("another process has taken this one's place")

// Listen gives the inherited socket for the address, or opens one. The socket options of lc.Control are set on either. The
// caller owns it; closing it here does not close it in another process that has it.
func (s *Sockets) Listen(lc net.ListenConfig, network, address string) (net.Listener, error) {
	held, err := s.get(network, address, lc.Control, func() (holder, error) {
		ln, err := lc.Listen(context.Background(), network, address)
		if err != nil {
			return nil, err
		}
		return ln.(holder), nil
	})
	if err != nil {
		return nil, err
	}
	return held.(net.Listener), nil
}

// ListenPacket is Listen for datagrams. Of two processes that read from one socket each gets some of the datagrams: the old
// one must stop reading when the new one begins.
func (s *Sockets) ListenPacket(lc net.ListenConfig, network, address string) (net.PacketConn, error) {
	held, err := s.get(network, address, lc.Control, func() (holder, error) {
		pc, err := lc.ListenPacket(context.Background(), network, address)
		if err != nil {
			return nil, err
		}
		return pc.(holder), nil
	})
	if err != nil {
		return nil, err
	}
	return held.(net.PacketConn), nil
}

func (s *Sockets) get(network, address string, control func(string, string, syscall.RawConn) error, open func() (holder, error)) (holder, error) {
	if s == nil {
		return open()
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if k := s.claim(network, address); k != nil {
		if err := configure(k, control); err != nil {
			_ = k.held.Close()
			return nil, fmt.Errorf("inherited socket for %s: %w", address, err)
		}
		s.open = append(s.open, k)
		return k.held, nil
	}
	held, err := open()
	if err != nil {
		return nil, err
	}
	s.prune()
	s.open = append(s.open, &socket{Network: family(network), Address: address, held: held})
	return held, nil
}

// enter locks. While an upgrade runs it waits: the new process has what was open before.
func (s *Sockets) enter() error {
	for {
		s.mu.Lock()
		wait := s.upgrading
		if wait == nil && !s.replaced {
			return nil
		}
		replaced := s.replaced
		s.mu.Unlock()
		if replaced {
			return ErrReplaced
		}
		<-wait
	}
}

// claim takes an inherited socket for the address out of the list; nil if there is none. An address that is the same as it
// was for the process before comes first, then one that is the same in effect. The caller holds mu.
func (s *Sockets) claim(network, address string) *socket {
	for _, fits := range []func(*socket) bool{
		func(k *socket) bool { return k.Address == address },
		func(k *socket) bool { return k.serves(address) },
	} {
		i := slices.IndexFunc(s.unclaimed, func(k *socket) bool { return k.Network == family(network) && fits(k) })
		if i >= 0 {
			k := s.unclaimed[i]
			s.unclaimed = slices.Delete(s.unclaimed, i, i+1)
			k.Address = address
			return k
		}
	}
	return nil
}

// serves says whether a socket takes what is sent to a configured address.
func (k *socket) serves(address string) bool {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil || port == 0 || uint16(port) != k.actual.Port() {
		return false
	}
	have := k.actual.Addr()
	if host == "" {
		return have == netip.IPv6Unspecified() && k.dual
	}
	want, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return have.Unmap() == want.Unmap() || want == netip.IPv4Unspecified() && have == netip.IPv6Unspecified() && k.dual
}

// configure sets socket options as if the socket had just been made.
func configure(k *socket, control func(string, string, syscall.RawConn) error) error {
	if control == nil {
		return nil
	}
	raw, err := k.held.SyscallConn()
	if err != nil {
		return err
	}
	return control(k.Network, k.Address, raw)
}

func family(network string) string { return strings.TrimRight(network, "46") }

// prune forgets sockets that are closed. The caller holds mu.
func (s *Sockets) prune() {
	s.open = slices.DeleteFunc(s.open, func(k *socket) bool {
		raw, err := k.held.SyscallConn()
		return err != nil || raw.Control(func(uintptr) {}) != nil
	})
}

// Inherited says whether another process passed sockets on to this one and still serves.
func (s *Sockets) Inherited() bool { return s != nil && s.from != nil }

// Turn is closed when this process is to accept visitors: at once, unless it takes another's place, which serves them until
// its clients have come over.
func (s *Sockets) Turn() <-chan struct{} {
	if s == nil {
		now := make(chan struct{})
		close(now)
		return now
	}
	return s.turn
}

// claimTime is how long inherited sockets are held that nobody has claimed: ports of clients that have yet to come back.
const claimTime = 30 * time.Second

// Run closes what nobody has claimed some time after this process's turn. It returns when the context ends, and what was
// not claimed is closed then.
func (s *Sockets) Run(ctx context.Context) error {
	if s == nil {
		return nil
	}
	defer s.closeUnclaimed()
	select {
	case <-s.turn:
	case <-ctx.Done():
		return nil
	}
	timer := time.NewTimer(s.hold)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.closeUnclaimed()
		<-ctx.Done()
	case <-ctx.Done():
	}
	return nil
}

func (s *Sockets) closeUnclaimed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.unclaimed {
		s.log.Info("inherited socket closed: nothing is configured for it, and no client has claimed it",
			"network", k.Network, "addr", k.Address, "name", k.Name)
		_ = k.held.Close()
	}
	s.unclaimed = nil
}
