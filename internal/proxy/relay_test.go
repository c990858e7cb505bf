package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/upstream"
)

// joined is a visitor and a service with a relay between them.
type joined struct {
	visitor, service *net.TCPConn
	in, out          atomic.Int64
	done             chan error
}

func (w way) join(t testing.TB, ctx context.Context) *joined {
	visitor, a := pair(t)
	b, service := pair(t)
	j := &joined{visitor: visitor, service: service}
	j.done = between(ctx, new(Carrier), w.a(upstream.FromTCP(a)), w.b(upstream.FromTCP(b)), func(d Direction, n int) {
		map[Direction]*atomic.Int64{In: &j.in, Out: &j.out}[d].Add(int64(n))
	})
	return j
}

// between has a Carrier relay, and gives what came of it.
func between(ctx context.Context, c *Carrier, a, b upstream.Conn, count func(Direction, int)) chan error {
	done := make(chan error, 1)
	c.Carry(ctx, func() (_, _ upstream.Conn, _ error) { return a, b, nil }, count, func(err error) { done <- err })
	return done
}

// pumped is a Conn that copies by itself, as a stream of a session does.
type pumped struct{ upstream.Conn }

func (p pumped) Pull(src io.Reader, moved func(int)) (readErr, writeErr error) {
	return pump(p.Conn, src.(net.Conn), moved)
}

func (p pumped) Push(dst net.Conn, moved func(int), done func(readErr, writeErr error)) {
	go func() { done(pump(dst, p.Conn, moved)) }()
}

func pump(dst io.Writer, src net.Conn, moved func(int)) (readErr, writeErr error) {
	r := upstream.NewReader(src, upstream.MaxRead)
	defer r.Release()
	for {
		p, readErr := r.Next()
		if len(p) > 0 {
			n, err := dst.Write(p)
			moved(n)
			if err != nil {
				return nil, err
			}
		}
		if readErr != nil {
			return unlessEnd(readErr), nil
		}
		r.Release()
	}
}

// opaque is a Conn without a descriptor, as one with TLS is.
type opaque struct{ upstream.Conn }

// way is what stands on the two sides of a relay.
type way struct {
	name string
	a, b func(upstream.Conn) upstream.Conn
}

func ways() []way {
	socket := func(c upstream.Conn) upstream.Conn { return c }
	stream := func(c upstream.Conn) upstream.Conn { return pumped{c} }
	cloaked := func(c upstream.Conn) upstream.Conn { return opaque{c} }
	return []way{
		{"sockets", socket, socket},
		{"a socket and a stream", socket, stream},
		{"a stream and a socket", stream, socket},
		{"two streams", stream, stream},
		{"a socket and TLS", socket, cloaked},
		{"a stream and TLS", stream, cloaked},
	}
}

// eachWay runs a test for all that can stand on the sides of a relay.
func eachWay(t *testing.T, test func(t *testing.T, w way)) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) { test(t, w) })
	}
}

func TestRelayPassesHalfCloseOnBothWays(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for _, tt := range []struct {
			name string
			ends func(*joined) (first, second *net.TCPConn)
		}{
			{"the visitor ends first", func(j *joined) (_, _ *net.TCPConn) { return j.visitor, j.service }},
			{"the service ends first", func(j *joined) (_, _ *net.TCPConn) { return j.service, j.visitor }},
		} {
			t.Run(tt.name, func(t *testing.T) {
				j := w.join(t, t.Context())
				first, second := tt.ends(j)
				big := bytes.Repeat([]byte("culvert "), 64<<10)
				go func() {
					_, _ = first.Write(big)
					_ = first.CloseWrite()
				}()
				if got, err := io.ReadAll(second); err != nil || !bytes.Equal(got, big) {
					t.Errorf("read %d bytes, %v, want %d and an end", len(got), err, len(big))
				}
				if _, err := second.Write([]byte("answer")); err != nil { // the other direction is still open
					t.Fatal(err)
				}
				_ = second.Close()
				if got, err := io.ReadAll(first); err != nil || string(got) != "answer" {
					t.Errorf("read %q, %v, want answer and an end", got, err)
				}
				if err := <-j.done; err != nil {
					t.Errorf("relay gave %v, want nil", err)
				}
				if sum := j.in.Load() + j.out.Load(); sum != int64(len(big)+len("answer")) {
					t.Errorf("%d bytes counted, want %d", sum, len(big)+len("answer"))
				}
			})
		}
	})
}

func TestRelayPassesResetOn(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for _, tt := range []struct {
			name string
			ends func(*joined) (resets, other *net.TCPConn)
		}{
			{"the visitor resets", func(j *joined) (_, _ *net.TCPConn) { return j.visitor, j.service }},
			{"the service resets", func(j *joined) (_, _ *net.TCPConn) { return j.service, j.visitor }},
		} {
			t.Run(tt.name, func(t *testing.T) {
				j := w.join(t, t.Context())
				resets, other := tt.ends(j)
				_ = upstream.FromTCP(resets).Reset()
				if _, err := io.ReadAll(other); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the other side read %v, want a reset", err)
				}
				if err := <-j.done; !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("relay gave %v, want a reset", err)
				}
			})
		}
	})
}

// A service that dies while the visitor sends tells the relay's writer first or its reader first, as it happens; the
// visitor must never read an end.
func TestServiceThatDiesUnderUploadNeverLooksComplete(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for range 100 {
			j := w.join(t, t.Context())
			go func() {
				for p := make([]byte, 64<<10); ; {
					if _, err := j.visitor.Write(p); err != nil {
						return
					}
				}
			}()
			if _, err := io.ReadFull(j.service, make([]byte, 256<<10)); err != nil {
				t.Fatal(err)
			}
			_ = upstream.FromTCP(j.service).Reset()
			if _, err := io.ReadAll(upstream.FromTCP(j.visitor)); err == nil { // its own writer may hear of the reset first
				t.Fatal("the visitor read a clean end")
			}
			if err := <-j.done; err == nil {
				t.Fatal("relay gave nil")
			}
		}
	})
}

func TestEarlyAnswerReachesAVisitorThatStillSends(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		j := w.join(t, t.Context())
		if _, err := j.visitor.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(j.service, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		if _, err := j.service.Write([]byte("too large")); err != nil {
			t.Fatal(err)
		}
		_ = j.service.Close()
		got := make([]byte, 9)
		if _, err := io.ReadFull(j.visitor, got); err != nil || string(got) != "too large" {
			t.Errorf("read %q, %v", got, err)
		}
		for { // the service is gone: sooner or later a write says so
			if _, err := j.visitor.Write(make([]byte, 1024)); err != nil {
				break
			}
		}
		if err := <-j.done; err == nil {
			t.Error("relay gave nil")
		}
	})
}

func TestRelayEndsWithTheContext(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		ctx, cancel := context.WithCancelCause(t.Context())
		j := w.join(t, ctx)
		cause := errors.New("shutting down")
		cancel(cause)
		if err := <-j.done; !errors.Is(err, cause) {
			t.Errorf("relay gave %v, want the cause", err)
		}
		for _, c := range []*net.TCPConn{j.visitor, j.service} {
			if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %v, want a reset", err)
			}
		}
	})
}

func TestVisitorThatStallsStopsTheService(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		ctx, cancel := context.WithCancel(t.Context())
		j := w.join(t, ctx)
		stalled := make(chan struct{})
		go func() {
			defer close(stalled)
			_ = j.service.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			for p := make([]byte, 1<<20); ; {
				if _, err := j.service.Write(p); err != nil {
					return
				}
			}
		}()
		<-stalled // the visitor reads nothing, so the service cannot go on for ever
		if n := j.out.Load(); n > 64<<20 {
			t.Errorf("%d bytes were taken for a visitor that does not read", n)
		}
		cancel()
		<-j.done
	})
}

// memory is a Conn without a network, for bubbles of synctest.
type memory struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func memoryPair() (near, far *memory) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return &memory{r1, w2}, &memory{r2, w1}
}

var errReset = errors.New("reset")

func (m *memory) Read(p []byte) (int, error)  { return m.r.Read(p) }
func (m *memory) Write(p []byte) (int, error) { return m.w.Write(p) }
func (m *memory) CloseWrite() error           { return m.w.Close() }

func (m *memory) Close() error {
	_ = m.w.Close()
	return m.r.Close()
}

func (m *memory) Reset() error {
	_ = m.w.CloseWithError(errReset)
	return m.r.CloseWithError(errReset)
}

func (*memory) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (*memory) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (*memory) SetDeadline(time.Time) error      { return nil }
func (*memory) SetReadDeadline(time.Time) error  { return nil }
func (*memory) SetWriteDeadline(time.Time) error { return nil }

func TestHalfClosedAndStillIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		visitor, a := memoryPair()
		b, service := memoryPair()
		start := time.Now()
		done := between(t.Context(), new(Carrier), a, b, nil)
		_ = visitor.CloseWrite()
		if _, err := service.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("the service read %v, want EOF", err)
		}
		time.Sleep(9 * time.Minute)
		go func() { _, _ = service.Write([]byte("x")) }()
		if _, err := io.ReadFull(visitor, make([]byte, 1)); err != nil { // what moves starts the time anew
			t.Fatal(err)
		}
		if _, err := visitor.Read(make([]byte, 1)); !errors.Is(err, errReset) {
			t.Errorf("the visitor read %v, want a reset", err)
		}
		if err := <-done; err == nil {
			t.Error("relay gave nil")
		}
		if took := time.Since(start); took != 19*time.Minute {
			t.Errorf("it took %v, want 19m", took)
		}
		time.Sleep(time.Second) // the goroutines that are kept for others end
	})
}

func TestIdleConnectionIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		visitor, a := memoryPair()
		b, service := memoryPair()
		done := between(t.Context(), new(Carrier), a, b, nil)
		time.Sleep(1000 * time.Hour)
		go func() { _, _ = visitor.Write([]byte("x")) }()
		if _, err := io.ReadFull(service, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		_ = visitor.CloseWrite()
		_ = service.CloseWrite()
		if err := <-done; err != nil {
			t.Errorf("relay gave %v", err)
		}
		time.Sleep(time.Second) // the goroutines that are kept for others end
	})
}

func BenchmarkRelayEcho(b *testing.B) {
	visitor, a := pair(b)
	c, far := pair(b)
	done := between(b.Context(), new(Carrier), upstream.FromTCP(a), upstream.FromTCP(c), func(Direction, int) {})
	go echo(far)
	msg := make([]byte, 512)
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		if _, err := visitor.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(visitor, msg); err != nil {
			b.Fatal(err)
		}
	}
	visitor.Close()
	far.Close()
	<-done
}
