//go:build unix

package upstream

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// awaitReadable waits until there is something to read, and leaves it there.
func awaitReadable(t testing.TB, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return err == nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestReaderGivesWhatIsThere(t *testing.T) {
	near, far := tcpPair(t)
	r := NewReader(FromTCP(far), 4)
	defer r.Release()
	if p, err := r.Now(); p != nil || err != nil {
		t.Errorf("of a silent peer there are %q, %v", p, err)
	}
	if r.buf != nil {
		t.Error("a buffer is held for nothing")
	}
	if _, err := io.WriteString(near, "abcdef"); err != nil {
		t.Fatal(err)
	}
	awaitReadable(t, far)
	if p, err := r.Now(); string(p) != "abcd" || err != nil {
		t.Errorf("read %q, %v, want abcd", p, err)
	}
	if p, err := r.Next(); string(p) != "ef" || err != nil {
		t.Errorf("read %q, %v, want ef", p, err)
	}
	near.Close()
	for range 2 {
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("read %v, want EOF", err)
		}
	}
}

// TestReaderHoldsNoBufferWhileItWaits looks at a Reader that has been waiting when a deadline ends its wait.
func TestReaderHoldsNoBufferWhileItWaits(t *testing.T) {
	_, far := tcpPair(t)
	r := NewReader(FromTCP(far), MaxRead)
	_ = far.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := r.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %v, want out of time", err)
	}
	if r.buf != nil {
		t.Error("a buffer is held")
	}
}

func TestReaderTellsAResetFromAnEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		hear func(c Conn) // of the reset, before the reader does
	}{
		{"the reader hears of it first", func(Conn) {}},
		{"a writer heard of it", func(c Conn) {
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := tcpPair(t)
			c := FromTCP(far)
			_ = FromTCP(near).Reset()
			tt.hear(c)
			_, err := NewReader(c, 10).Next()
			var op *net.OpError
			if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) {
				t.Errorf("read %v, want a reset", err)
			}
		})
	}
}

func TestReaderOfAClosedConnection(t *testing.T) {
	_, far := tcpPair(t)
	r := NewReader(FromTCP(far), 10)
	far.Close()
	if _, err := r.Next(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read %v, want that it is closed", err)
	}
}

func TestReaderOfAConnectionWithoutADescriptor(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	r := NewReader(far, 4)
	defer r.Release()
	go func() {
		_, _ = io.WriteString(near, "abcdef")
		near.Close()
	}()
	if p, err := r.Now(); p != nil || err != nil {
		t.Errorf("without waiting there are %q, %v", p, err)
	}
	var got strings.Builder
	for {
		p, err := r.Next()
		got.Write(p)
		if err != nil {
			if err != io.EOF {
				t.Errorf("read %v, want EOF", err)
			}
			break
		}
	}
	if got.String() != "abcdef" {
		t.Errorf("read %q", got.String())
	}
}

func TestReaderAllocatesNothing(t *testing.T) {
	near, far := tcpPair(t)
	r := NewReader(FromTCP(far), MaxRead)
	defer r.Release()
	msg := make([]byte, 512)
	if n := testing.AllocsPerRun(200, func() {
		_, _ = near.Write(msg)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		r.Release()
	}); n != 0 {
		t.Errorf("%v allocations a read, want 0", n)
	}
}

// TestFirstOfBytesThatAreThereNeedsNoGoroutine has the First ready when ReadFirst returns.
func TestFirstOfBytesThatAreThereNeedsNoGoroutine(t *testing.T) {
	near, far := tcpPair(t)
	if _, err := io.WriteString(near, "hello"); err != nil {
		t.Fatal(err)
	}
	awaitReadable(t, far)
	select {
	case <-ReadFirst(far, 100, Begun{}).Ready():
	default:
		t.Error("not ready")
	}
}

func TestAwait(t *testing.T) {
	near, far := tcpPair(t)
	c := FromTCP(far)
	if !Awaitable(c) {
		t.Fatal("a TCP connection cannot be waited for")
	}
	_ = far.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := Await(c); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a silent peer: %v, want out of time", err)
	}
	_ = far.SetReadDeadline(time.Time{})
	for _, say := range []func(){
		func() { _, _ = io.WriteString(near, "x") },
		func() { near.CloseWrite() },
		func() { _ = FromTCP(near).Reset() },
	} {
		go say()
		if err := Await(c); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 10)); err != nil && err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
	far.Close()
	if err := Await(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	pipe, _ := net.Pipe()
	if Awaitable(pipe) || Await(pipe) != nil {
		t.Error("a pipe has no descriptor to wait for")
	}
}
