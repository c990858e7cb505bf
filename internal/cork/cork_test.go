package cork

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted counts the writes to a socket.
type counted struct {
	*net.TCPConn
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.TCPConn.Write(p)
}

func (c *counted) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	r := &countedRaw{RawConn: raw}
	r.counting = func(fd uintptr) bool {
		c.writes.Add(1)
		return r.f(fd)
	}
	return r, err
}

// countedRaw counts each time that the descriptor is given to be written.
type countedRaw struct {
	syscall.RawConn
	f, counting func(fd uintptr) bool
}

func (r *countedRaw) Write(f func(fd uintptr) bool) error {
	r.f = f
	return r.RawConn.Write(r.counting)
}

// pair is a corked connection on loopback and its far end.
func pair(t testing.TB) (near *Conn, below *counted, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	below = &counted{TCPConn: dialled.(*net.TCPConn)}
	near = New(below)
	t.Cleanup(func() {
		near.Close()
		accepted.Close()
	})
	return near, below, accepted.(*net.TCPConn)
}

func payload(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(p)
	return p
}

func TestWritesAreHeldBackUntilUncork(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sizes  []int
		writes int64
	}{
		{"nothing", nil, 0},
		{"one", []int{5}, 1},
		{"the records of a flush", []int{16406, 16406, 16406, 16406, 100}, 1},
		{"a message of 128 KiB and its records", []int{16406, 16406, 16406, 16406, 16406, 16406, 16406, 16406, 200}, 1},
		{"more than is held back", []int{200 << 10, 200 << 10, 1}, 2},
		{"one that is more by itself", []int{10, 300 << 10, 10}, 3},
		{"only one that is more by itself", []int{300 << 10}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, below, far := pair(t)
			total := 0
			for _, n := range tt.sizes {
				total += n
			}
			all, got, read := payload(total), make([]byte, total), make(chan error, 1)
			go func() {
				_, err := io.ReadFull(far, got)
				read <- err
			}()
			c.Cork()
			for rest, i := all, 0; i < len(tt.sizes); i++ {
				n, err := c.Write(rest[:tt.sizes[i]])
				if err != nil || n != tt.sizes[i] {
					t.Fatalf("write gave %d, %v", n, err)
				}
				rest = rest[n:]
			}
			if err := errors.Join(c.Uncork(), <-read); err != nil || !bytes.Equal(got, all) {
				t.Errorf("the bytes differ, err %v", err)
			}
			if n := below.writes.Load(); n != tt.writes {
				t.Errorf("%d writes, want %d", n, tt.writes)
			}
			if c.held != nil {
				t.Error("a buffer is still held")
			}
		})
	}
}

func TestWritesAfterUncorkGoOutAtOnce(t *testing.T) {
	c, _, far := pair(t)
	c.Cork()
	if err := c.Uncork(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "hi"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "hi" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestNothingIsWrittenBehindAGap(t *testing.T) {
	c, _, _ := pair(t)
	_ = c.SetWriteDeadline(time.Unix(1, 0))
	c.Cork()
	_, _ = c.Write(payload(100))
	if err := c.Uncork(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("uncork gave %v, want the deadline", err)
	}
	_ = c.SetWriteDeadline(time.Time{})
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write behind the gap gave %v", err)
	}
	c.Cork()
	if err := c.Uncork(); err == nil {
		t.Error("a later flush says that all is well")
	}
}

func TestReadAheadIsReturnedWhenDrained(t *testing.T) {
	c, _, far := pair(t)
	sent := payload(1000)
	if _, err := far.Write(sent); err != nil {
		t.Fatal(err)
	}
	var got []byte
	p := make([]byte, 300)
	for len(got) < len(sent) {
		n, err := c.Read(p)
		if err != nil || n == 0 {
			t.Fatalf("read gave %d, %v", n, err)
		}
		got = append(got, p[:n]...)
		if ahead := c.in.ahead != nil; ahead != (c.Pending() > 0) {
			t.Fatalf("%d bytes are pending, buffer held: %v", c.Pending(), ahead)
		}
	}
	if !bytes.Equal(got, sent) || c.Pending() != 0 {
		t.Errorf("the bytes differ, %d are left", c.Pending())
	}
	far.CloseWrite()
	if _, err := c.Read(p); err != io.EOF {
		t.Errorf("at the end: got %v, want EOF", err)
	}
}

func TestReadsIntoLargeBuffersGoStraight(t *testing.T) {
	c, _, far := pair(t)
	sent := payload(1 << 20)
	go func() {
		_, _ = far.Write(sent)
		far.Close()
	}()
	var got []byte
	sizes := []int{64 << 10, 1, 5, 48 << 10, 517, 100}
	for i := 0; ; i++ {
		p := make([]byte, sizes[i%len(sizes)])
		n, err := c.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			break
		}
		if n == 0 {
			t.Fatal("read gave 0 bytes and no error")
		}
	}
	if !bytes.Equal(got, sent) {
		t.Error("the bytes differ")
	}
}

func TestWhatEndsAWaitingRead(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(c *Conn, far *net.TCPConn)
		want error
	}{
		{"a deadline", func(c *Conn, _ *net.TCPConn) { c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) }, os.ErrDeadlineExceeded},
		{"a deadline that is over", func(c *Conn, _ *net.TCPConn) { c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"close", func(c *Conn, _ *net.TCPConn) { c.Close() }, net.ErrClosed},
		{"the peer's end", func(_ *Conn, far *net.TCPConn) { far.Close() }, io.EOF},
		{"a reset", func(_ *Conn, far *net.TCPConn) {
			far.SetLinger(0)
			far.Close()
		}, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, far := pair(t)
			ended := make(chan error, 1)
			go func() {
				_, err := c.Read(make([]byte, 10))
				ended <- err
			}()
			tt.do(c, far)
			if err := <-ended; !errors.Is(err, tt.want) {
				t.Errorf("the read ended with %v, want %v", err, tt.want)
			}
			if c.in.ahead != nil {
				t.Error("a buffer is still held")
			}
		})
	}
}

func TestReadGoesOnAfterADeadline(t *testing.T) {
	c, _, far := pair(t)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Time{})
	_, _ = io.WriteString(far, "hi")
	got := make([]byte, 2)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hi" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWithoutADescriptorReadsAreAsTheyAre(t *testing.T) {
	a, b := net.Pipe()
	c := New(a)
	defer c.Close()
	go func() {
		_, _ = io.WriteString(b, "hi")
		b.Close()
	}()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hi" || c.Pending() != 0 {
		t.Errorf("got %q, %v, %d pending", got, err, c.Pending())
	}
}

func TestUnderFindsTheCork(t *testing.T) {
	a, _ := net.Pipe()
	c := New(a)
	for _, tt := range []struct {
		name string
		conn net.Conn
		want *Conn
	}{
		{"itself", c, c},
		{"below TLS", tls.Client(c, &tls.Config{}), c},
		{"below TLS in TLS", tls.Client(tls.Client(c, &tls.Config{}), &tls.Config{}), c},
		{"none", a, nil},
		{"none below TLS", tls.Client(a, &tls.Config{}), nil},
		{"no connection", nil, nil},
	} {
		if got := Under(tt.conn); got != tt.want {
			t.Errorf("%s: got %p, want %p", tt.name, got, tt.want)
		}
	}
}

func TestListenerGivesTunedCorks(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listener{ln}
	defer l.Close()
	d, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if Under(c) == nil || !waits(Under(c)) {
		t.Error("the connection is not corked")
	}
	ln.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after close: got %v", err)
	}
}

func waits(c *Conn) bool { return c.in.wait != nil }

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool forgets at random under the race detector")
	}
	c, _, far := pair(t)
	go func() { _, _ = io.Copy(far, struct{ io.Reader }{far}) }()
	p, in := payload(8<<10), make([]byte, 512)
	if n := testing.AllocsPerRun(200, func() {
		c.Cork()
		for range 3 {
			_, _ = c.Write(p)
		}
		if err := c.Uncork(); err != nil {
			t.Fatal(err)
		}
		for left := 3 * len(p); left > 0; {
			n, err := c.Read(in)
			if err != nil {
				t.Fatal(err)
			}
			left -= n
		}
	}); n > 0.5 { // the collector may empty the pool
		t.Errorf("%v allocations a flush", n)
	}
}

func BenchmarkFlush(b *testing.B) {
	c, below, far := pair(b)
	go func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{far}) }()
	record := payload(16406)
	b.SetBytes(4 * int64(len(record)))
	b.ReportAllocs()
	for b.Loop() {
		c.Cork()
		for range 4 {
			_, _ = c.Write(record)
		}
		if err := c.Uncork(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(below.writes.Load())/float64(b.N), "writes/op")
}
