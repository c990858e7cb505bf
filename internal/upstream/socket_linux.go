package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a TCP connection to a fixed address, made with fewer system calls than package net makes: nobody asks for the
// addresses until somebody wants to know, and a service on this machine is connected by one call. Its errors are those of
// package net.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	to   netip.AddrPort
}

var _ halfCloser = (*socket)(nil)

// dialSocket connects to an address until the deadline. local says that it is on this machine, which does not vanish
// silently. It is for addresses without a zone.
func dialSocket(ctx context.Context, to netip.AddrPort, deadline time.Time, local bool) (halfCloser, error) {
	for again := 0; ; again++ {
		s, err := connectedSocket(ctx, to, deadline, local)
		if err != nil {
			return nil, dialError(to, err)
		}
		if !s.isOwnPeer() {
			return s, nil
		}
		_ = s.SetLinger(0) // nothing of it is to stay on the port
		_ = s.file.Close()
		if again == 2 { // as often as package net tries it
			return nil, dialError(to, os.NewSyscallError("connect", syscall.ECONNREFUSED))
		}
	}
}

func connectedSocket(ctx context.Context, to netip.AddrPort, deadline time.Time, local bool) (*socket, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !time.Now().Before(deadline) {
		return nil, os.ErrDeadlineExceeded
	}
	fd, err := beginSocket(to, local)
	if err != nil {
		return nil, err
	}
	connected, err := connectRaw(fd, to)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s := &socket{file: os.NewFile(uintptr(fd), "tcp"), to: to}
	s.raw, err = s.file.SyscallConn()
	if err == nil && !connected {
		err = s.await(ctx, deadline)
	}
	if err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return s, nil
}

// isOwnPeer says whether the socket is connected to itself. The kernel does that when it picks, as the source of a
// connection to this machine, the very port that is asked for, because nobody listens there: a visitor would hear an echo,
// and the service could not come back for as long as it lasts.
func (s *socket) isOwnPeer() bool {
	if s.to.Port() < 1024 { // no source is picked there, and asking is a system call
		return false
	}
	a := s.local()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) == s.to
}

func dialError(to netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
}

// beginSocket opens a socket with the options that package net sets.
func beginSocket(to netip.AddrPort, local bool) (int, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if !local {
		err = errors.Join(err,
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9),
		)
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

// connectRaw begins to connect and says whether that is done already. It does not tell the scheduler: it waits for
// nothing, but takes so long on this machine, whose kernel does the service's part too, that its processor would be given
// away. The first call begins; the answer of a service on this machine is there when it returns, and the second call takes
// note of it.
func connectRaw(fd int, to netip.AddrPort) (done bool, err error) {
	var v4 syscall.RawSockaddrInet4
	var v6 syscall.RawSockaddrInet6
	sa, size := unsafe.Pointer(&v4), uintptr(syscall.SizeofSockaddrInet4)
	if to.Addr().Is4() {
		v4 = syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: bigEndian(to.Port()), Addr: to.Addr().As4()}
	} else {
		v6 = syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: bigEndian(to.Port()), Addr: to.Addr().As16()}
		sa, size = unsafe.Pointer(&v6), syscall.SizeofSockaddrInet6
	}
	for range 2 {
		_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(sa), size)
		switch errno {
		case 0, syscall.EISCONN:
			return true, nil
		case syscall.EINPROGRESS, syscall.EALREADY, syscall.EINTR:
		default:
			return false, os.NewSyscallError("connect", errno)
		}
	}
	return false, nil
}

// await waits until the socket is connected, has failed, or is out of time.
func (s *socket) await(ctx context.Context, deadline time.Time) error {
	_ = s.file.SetWriteDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetWriteDeadline(time.Unix(1, 0)) })
	var failed error
	err := s.raw.Write(func(fd uintptr) bool {
		set := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, _ := unix.Poll(set[:], 0); n <= 0 {
			return false
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = syscall.Errno(code)
		}
		failed = os.NewSyscallError("connect", err)
		return true
	})
	if !stop() { // the deadline is, or is about to be, what the context's end made of it
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	_ = s.file.SetWriteDeadline(time.Time{})
	return failed
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.file.Read(p)
	return n, s.opError("read", err)
}

func (s *socket) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	return n, s.opError("write", err)
}

func (s *socket) Close() error { return s.opError("close", s.file.Close()) }

func (s *socket) CloseWrite() error {
	return s.control("close", func(fd int) error { return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR)) })
}

// SetLinger is that of a TCPConn.
func (s *socket) SetLinger(sec int) error {
	l := unix.Linger{Onoff: 1, Linger: int32(sec)}
	if sec < 0 {
		l = unix.Linger{}
	}
	return s.control("set", func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	})
}

func (s *socket) control(op string, do func(fd int) error) error {
	var failed error
	if err := s.raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return s.opError(op, net.ErrClosed)
	}
	return s.opError(op, failed)
}

func (s *socket) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

// LocalAddr is the socket's own address; without port and address once it is closed.
func (s *socket) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(s.local()) }

func (s *socket) local() (a netip.AddrPort) {
	_ = s.raw.Control(func(fd uintptr) {
		switch sa, _ := syscall.Getsockname(int(fd)); sa := sa.(type) { // that of unix asks for the protocol, too
		case *syscall.SockaddrInet4:
			a = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *syscall.SockaddrInet6:
			a = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		}
	})
	return a
}

func (s *socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.to) }

func (s *socket) SetDeadline(t time.Time) error {
	return s.opError("set", s.file.SetDeadline(t))
}

func (s *socket) SetReadDeadline(t time.Time) error {
	return s.opError("set", s.file.SetReadDeadline(t))
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	return s.opError("set", s.file.SetWriteDeadline(t))
}

// opError is an error of the file as package net has it.
func (s *socket) opError(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	var of *os.PathError
	if errors.As(err, &of) {
		err = of.Err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}
