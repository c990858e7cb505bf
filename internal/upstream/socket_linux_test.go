package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// full is a listener whose queue is full: who connects waits. empty lets the next one in.
func full(t *testing.T) (addr netip.AddrPort, empty func()) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return addr, func() {
		accepted, _, err := unix.Accept(fd)
		if err != nil {
			t.Error(err)
		}
		unix.Close(accepted)
	}
}

func TestDialSocketWaits(t *testing.T) {
	soon := func() time.Time { return time.Now().Add(50 * time.Millisecond) }
	addr, empty := full(t)
	if _, err := dialSocket(t.Context(), addr, soon(), true); !errors.Is(err, os.ErrDeadlineExceeded) || reasonOfConnect(t.Context(), err) != TimedOut {
		t.Errorf("a service that does not answer gave %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := dialSocket(ctx, addr, time.Now().Add(time.Minute), true); !errors.Is(err, context.Canceled) || reasonOfConnect(ctx, err) != Canceled {
		t.Errorf("an end of the context gave %v", err)
	}
	time.AfterFunc(50*time.Millisecond, empty)
	c, err := dialSocket(t.Context(), addr, time.Now().Add(time.Minute), false) // the kernel asks again after a second
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil { // no deadline is left
		t.Error(err)
	}
}

// TestSocketFailsAsConnectionsDo compares with what package net makes.
func TestSocketFailsAsConnectionsDo(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	to := netip.MustParseAddrPort(ln.Addr().String())
	for _, tt := range []struct {
		name string
		do   func(c halfCloser) error
		want error
	}{
		{"read after close", func(c halfCloser) error {
			c.Close()
			_, err := c.Read(make([]byte, 1))
			return err
		}, net.ErrClosed},
		{"write after close", func(c halfCloser) error {
			c.Close()
			_, err := c.Write(make([]byte, 1))
			return err
		}, net.ErrClosed},
		{"half-close after close", func(c halfCloser) error {
			c.Close()
			return c.CloseWrite()
		}, net.ErrClosed},
		{"close after close", func(c halfCloser) error {
			c.Close()
			return c.Close()
		}, net.ErrClosed},
		{"read out of time", func(c halfCloser) error {
			_ = c.SetReadDeadline(time.Unix(1, 0))
			_, err := c.Read(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		{"write out of time", func(c halfCloser) error {
			_ = c.SetDeadline(time.Unix(1, 0))
			_, err := c.Write(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		{"write after half-close", func(c halfCloser) error {
			if err := c.CloseWrite(); err != nil {
				return err
			}
			_, err := c.Write(make([]byte, 1))
			return err
		}, syscall.EPIPE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, err := dialSocket(t.Context(), to, time.Now().Add(time.Minute), true)
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			theirs, err := net.Dial("tcp", to.String())
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			got, want := tt.do(ours), tt.do(theirs.(*net.TCPConn))
			var g, w *net.OpError
			if !errors.Is(got, tt.want) || !errors.Is(want, tt.want) || !errors.As(got, &g) || !errors.As(want, &w) {
				t.Fatalf("got %v, want %v", got, want)
			}
			if g.Op != w.Op || g.Net != w.Net || g.Addr.String() != w.Addr.String() || g.Timeout() != w.Timeout() {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestSocketKnowsItsAddresses(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln := listen(t, "tcp", addr)
		c, err := dialSocket(t.Context(), netip.MustParseAddrPort(ln.Addr().String()), time.Now().Add(time.Minute), true)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		if c.LocalAddr().String() != far.RemoteAddr().String() || c.RemoteAddr().String() != far.LocalAddr().String() {
			t.Errorf("the socket says %v and %v, its peer %v and %v", c.LocalAddr(), c.RemoteAddr(), far.RemoteAddr(), far.LocalAddr())
		}
		if err := FromTCP(c).Reset(); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a reset is read as %v", err)
		}
	}
}

// TestSocketHasTheOptionsOfConnections compares with what package net makes.
func TestSocketHasTheOptionsOfConnections(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	ours, err := dialSocket(t.Context(), netip.MustParseAddrPort(ln.Addr().String()), time.Now().Add(time.Minute), false)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	for _, o := range []struct {
		name          string
		level, option int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	} {
		value := func(c net.Conn) (v int) {
			_ = descriptor(c).Control(func(fd uintptr) { v, _ = unix.GetsockoptInt(int(fd), o.level, o.option) })
			return v
		}
		if got, want := value(ours), value(theirs); got != want {
			t.Errorf("%s is %d, want %d", o.name, got, want)
		}
	}
}
