//go:build unix

package handover

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// variable tells a process of what it inherits. The descriptors begin at firstFD: the line to the process before, and then
// the sockets in their order.
const (
	variable = "CULVERT_HANDOVER"
	firstFD  = 3
)

// inheritance is the value of variable.
type inheritance struct {
	Parent  int       `json:"parent"`
	Sockets []*socket `json:"sockets"`
}

// Words on the line between the two processes.
const (
	wordReady = "ready\n" // the new one can take over
	wordTurn  = "turn\n"  // the old one accepts no more
)

// predecessor is the process whose place this one takes.
type predecessor struct {
	pid  int
	line net.Conn

	once sync.Once
}

// Inherit gives the sockets that the environment tells of, those of a process whose place this one takes or those of
// systemd's socket activation, and takes the news of them out of the environment. It is to be called once, at the start.
func Inherit(log *slog.Logger) (*Sockets, error) {
	s := New(log)
	if value, ok := os.LookupEnv(variable); ok {
		_ = os.Unsetenv(variable)
		return s, s.fromProcess(value)
	}
	return s, s.fromSystemd()
}

func (s *Sockets) fromProcess(value string) error {
	var in inheritance
	if err := json.Unmarshal([]byte(value), &in); err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	line, err := fileConn(firstFD)
	if err != nil {
		return fmt.Errorf("line to process %d: %w", in.Parent, err)
	}
	for i, k := range in.Sockets {
		if err := k.adopt(firstFD + 1 + i); err != nil {
			return fmt.Errorf("inherit %s %s: %w", k.Network, k.Address, err)
		}
		s.inherited = append(s.inherited, k)
	}
	s.from, s.turn = &predecessor{pid: in.Parent, line: line}, make(chan struct{})
	go s.listenToPredecessor() // ends with the process before, or its word
	return nil
}

// listenToPredecessor waits for this process's turn. It comes at the latest with the end of the process before.
func (s *Sockets) listenToPredecessor() {
	defer close(s.turn)
	defer s.from.line.Close()
	word, _ := bufio.NewReader(s.from.line).ReadString('\n')
	s.log.Info("this process has taken over", "from", s.from.pid, "told", word == wordTurn)
}

// Ready tells the process before that this one can take its place. Without one it does nothing.
func (s *Sockets) Ready() error {
	if s == nil || s.from == nil {
		return nil
	}
	var err error
	s.from.once.Do(func() {
		_ = s.from.line.SetWriteDeadline(time.Now().Add(time.Second))
		_, err = s.from.line.Write([]byte(wordReady))
	})
	if err != nil {
		return fmt.Errorf("tell process %d: %w", s.from.pid, err)
	}
	return nil
}

// fromSystemd takes the sockets of sd_listen_fds(3).
func (s *Sockets) fromSystemd() error {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	if pid != strconv.Itoa(os.Getpid()) {
		return nil // of another process, or not set
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return fmt.Errorf("LISTEN_FDS is %.20q", count)
	}
	for i := range n {
		k := &socket{Kept: true}
		if i < len(names) {
			k.Name = names[i]
		}
		if err := k.adopt(firstFD + i); err != nil {
			return fmt.Errorf("socket %d of systemd %q: %w", i+1, k.Name, err)
		}
		s.inherited = append(s.inherited, k)
	}
	return nil
}

// copy gives the socket another descriptor.
func (k *socket) copy() (*socket, error) {
	fd, err := duplicate(k.held)
	if err != nil {
		return nil, err
	}
	c := &socket{Network: k.Network, Address: k.Address, Name: k.Name, Kept: k.Kept}
	return c, c.adopt(fd)
}

// adopt makes a socket of a descriptor that was inherited, which it takes.
func (k *socket) adopt(fd int) error {
	syscall.CloseOnExec(fd)
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err == nil {
		k.dual = only == 0
	}
	f := os.NewFile(uintptr(fd), "inherited")
	defer f.Close() // what is made of it has a copy
	var addr net.Addr
	switch kind {
	case unix.SOCK_STREAM:
		ln, err := net.FileListener(f)
		if err != nil {
			return err
		}
		k.held, addr = ln.(holder), ln.Addr()
	case unix.SOCK_DGRAM:
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		k.held, addr = pc.(holder), pc.LocalAddr()
	default:
		return errors.New("neither a stream nor datagrams")
	}
	k.Network = addr.Network()
	if k.Address == "" {
		k.Address = addr.String()
	}
	switch a := addr.(type) {
	case *net.TCPAddr:
		k.actual = a.AddrPort()
	case *net.UDPAddr:
		k.actual = a.AddrPort()
	}
	k.actual = netip.AddrPortFrom(k.actual.Addr().WithZone(""), k.actual.Port())
	return nil
}

func fileConn(fd int) (net.Conn, error) {
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "line")
	defer f.Close()
	return net.FileConn(f)
}
