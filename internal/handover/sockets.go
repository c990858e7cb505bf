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
	inherited []*socket
	open      []*socket
	upgrading chan struct{} // closed when the upgrade that runs has ended; nil if none runs
	replaced  bool          // another process has taken over
}

// socket is one that listens, or receives datagrams.
type socket struct {
	Network string `json:"network"` // "tcp", "udp" or "unix"
	Address string `json:"address"` // as it was asked for
	Name    string `json:"name,omitempty"`
	// Kept is of a socket of systemd's, which has it open for ever: to open another one for the address would fail.
	Kept bool `json:"kept,omitempty"`

	claimed bool // of an inherited one
	held    holder
	actual  netip.AddrPort // the zero value in the file system
	dual    bool           // IPv6 that takes IPv4 too
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

// Program is how a process starts itself again.
type Program struct {
	Path string // where the new binary will be
	Args []string
}

// ErrReplaced is of a process that opens no more sockets, because another has taken its place.
var ErrReplaced = errors.New("another process has taken this one's place")

// Listen gives the inherited socket for the address, or opens one. The socket options of lc.Control are set on either. The
// caller owns it; closing it here does not close it in another process that has it.
func (s *Sockets) Listen(lc net.ListenConfig, network, address string) (net.Listener, error) {
	return get(s, network, address, lc.Control, lc.Listen)
}

// ListenPacket is Listen for datagrams. Of two processes that read from one socket each gets some of the datagrams: the old
// one must stop reading when the new one begins.
func (s *Sockets) ListenPacket(lc net.ListenConfig, network, address string) (net.PacketConn, error) {
	return get(s, network, address, lc.Control, lc.ListenPacket)
}

// control sets the options of a socket, as in net.ListenConfig.
type control = func(network, address string, c syscall.RawConn) error

// get gives the inherited socket for an address, or what open makes.
func get[T any](s *Sockets, network, address string, options control, open func(context.Context, string, string) (T, error)) (T, error) {
	var none T
	if s == nil {
		return open(context.Background(), network, address)
	}
	if err := s.enter(); err != nil {
		return none, err
	}
	defer s.mu.Unlock()
	if k := s.claim(network, address); k != nil {
		held, err := s.lend(k, address, options)
		if err != nil {
			return none, err
		}
		return held.(T), nil
	}
	opened, err := open(context.Background(), network, address)
	if err != nil {
		return none, err
	}
	s.prune()
	s.open = append(s.open, &socket{Network: family(network), Address: address, held: any(opened).(holder)})
	return opened, nil
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

// Settled waits while an upgrade runs, as Listen would: for those who call that with a lock held.
func (s *Sockets) Settled() {
	if s != nil && s.enter() == nil {
		s.mu.Unlock()
	}
}

// claim finds the inherited socket for an address; nil if there is none. An address that is the same as it was for the process
// before comes first, then one that is the same in effect. The caller holds mu.
func (s *Sockets) claim(network, address string) *socket {
	for _, fits := range []func(*socket) bool{
		func(k *socket) bool { return k.Address == address && !k.claimed },
		func(k *socket) bool { return k.Address == address && k.actual.Port() == k.port() },
		func(k *socket) bool { return k.serves(address) },
	} {
		i := slices.IndexFunc(s.inherited, func(k *socket) bool { return k.Network == family(network) && fits(k) })
		if i >= 0 {
			return s.inherited[i]
		}
	}
	return nil
}

// lend gives a copy of an inherited socket. The socket itself is kept: who closes the copy because a port has nobody to send
// visitors to at the moment will want another one, and could not open it while the process before has it too. The caller
// holds mu.
func (s *Sockets) lend(k *socket, address string, options control) (holder, error) {
	lent, err := k.copy()
	if err == nil {
		if err = configure(lent, options); err != nil {
			_ = lent.held.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("inherited socket for %s: %w", address, err)
	}
	k.claimed, k.Address, lent.Address = true, address, address
	s.prune()
	s.open = append(s.open, lent)
	return lent.held, nil
}

// port is the one that was asked for; 0 for any.
func (k *socket) port() uint16 {
	_, p, _ := net.SplitHostPort(k.Address)
	port, _ := strconv.ParseUint(p, 10, 16) // 0 for what is no address
	return uint16(port)
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
func configure(k *socket, options control) error {
	if options == nil {
		return nil
	}
	raw, err := k.held.SyscallConn()
	if err != nil {
		return err
	}
	return options(k.Network, k.Address, raw)
}

func family(network string) string { return strings.TrimRight(network, "46") }

// prune forgets sockets that are closed. The caller holds mu.
func (s *Sockets) prune() {
	s.open = slices.DeleteFunc(s.open, func(k *socket) bool {
		raw, err := k.held.SyscallConn()
		return err != nil || raw.Control(func(uintptr) {}) != nil
	})
}

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

// Run closes, some time after this process's turn, what nobody has claimed. It returns when the context ends, with all that was
// kept closed.
func (s *Sockets) Run(ctx context.Context) error {
	if s == nil {
		return nil
	}
	defer s.release(func(*socket) bool { return true })
	select {
	case <-s.turn:
	case <-ctx.Done():
		return nil
	}
	for _, step := range []struct {
		after time.Duration
		which func(*socket) bool
	}{
		// The process before has closed its own by then: what has been claimed can be opened anew if need be.
		{s.hold / 10, func(k *socket) bool { return k.claimed && !k.Kept }},
		{s.hold - s.hold/10, func(k *socket) bool { return !k.Kept || !k.claimed }},
	} {
		timer := time.NewTimer(step.after)
		select {
		case <-timer.C:
			s.release(step.which)
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
	<-ctx.Done()
	return nil
}

// release closes inherited sockets. Their copies that are in use stay open.
func (s *Sockets) release(which func(*socket) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inherited = slices.DeleteFunc(s.inherited, func(k *socket) bool {
		if !which(k) {
			return false
		}
		if !k.claimed {
			s.log.Info("inherited socket closed: nothing is configured for it, and no client has claimed it",
				"network", k.Network, "addr", k.Address, "name", k.Name)
		}
		_ = k.held.Close()
		return true
	})
}

// all are the sockets that another process is to have. The caller holds mu.
func (s *Sockets) all() []*socket {
	s.prune()
	list := slices.Clone(s.open)
	for _, k := range s.inherited {
		used := func(o *socket) bool { return o.Network == k.Network && o.Address == k.Address }
		if !slices.ContainsFunc(s.open, used) {
			list = append(list, k)
		}
	}
	return list
}
