package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/internal/upstream"
)

func TestRelayBeginsWithWhatWasRead(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name  string
		first string
		ended error
		rest  string // what the visitor says after that, before it ends
		want  string
		err   error
	}{
		{"nothing was read", "", nil, "world", "world", nil},
		{"bytes were read", "hello ", nil, "world", "hello world", nil},
		{"bytes and the end", "hello", io.EOF, "", "hello", nil},
		{"the end", "", io.EOF, "", "", nil},
		{"a failure", "", broken, "", "", broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, w way) {
				visitor, a := pair(t)
				b, service := pair(t)
				done := make(chan error, 1)
				r := relay{
					hands: new(hands), halfClosed: time.Minute, first: []byte(tt.first), firstErr: tt.ended,
					over: func(err error) { done <- err },
				}
				r.carry(t.Context(), func() bool {
					r.join(w.a(upstream.FromTCP(a)), w.b(upstream.FromTCP(b)))
					return true
				})
				_, _ = io.WriteString(visitor, tt.rest) // fails if the relay has failed
				_ = visitor.CloseWrite()
				p, err := io.ReadAll(service)
				if (err != nil) != (tt.err != nil) || tt.err == nil && string(p) != tt.want {
					t.Errorf("the service read %q, %v, want %q", p, err, tt.want)
				}
				service.Close()
				if err := <-done; !errors.Is(err, tt.err) {
					t.Errorf("relay gave %v, want %v", err, tt.err)
				}
			})
		})
	}
}

// slowToEnd is a Conn whose CloseWrite and Reset wait, as they may over TLS.
type slowToEnd struct {
	upstream.Conn
	goOn chan struct{}
}

func (s slowToEnd) CloseWrite() error {
	<-s.goOn
	return s.Conn.CloseWrite()
}

func (s slowToEnd) Reset() error {
	<-s.goOn
	return s.Conn.Reset()
}

// watched says when done has returned.
type watched struct {
	pumped
	returned chan struct{}
}

func (w watched) Push(dst net.Conn, moved func(int), done func(readErr, writeErr error)) {
	w.pumped.Push(dst, moved, func(readErr, writeErr error) {
		done(readErr, writeErr)
		close(w.returned)
	})
}

func TestTheGoroutineOfAStreamIsNotHeld(t *testing.T) {
	for _, tt := range []struct {
		name string
		ends func(service *net.TCPConn)
	}{
		{"the service ends", func(c *net.TCPConn) { _ = c.CloseWrite() }},
		{"the service resets", func(c *net.TCPConn) { _ = upstream.FromTCP(c).Reset() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			visitor, a := pair(t)
			b, service := pair(t)
			w := watched{pumped{upstream.FromTCP(b)}, make(chan struct{})}
			slow := slowToEnd{upstream.FromTCP(a), make(chan struct{})}
			done := between(t.Context(), new(Carrier), slow, w, nil)
			tt.ends(service)
			<-w.returned
			close(slow.goOn)
			_ = visitor.CloseWrite()
			<-done
		})
	}
}

func TestRelayAllocatesNothingForWhatMoves(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		j := w.join(t, t.Context())
		go echo(j.service)
		msg := make([]byte, 512)
		if n := testing.AllocsPerRun(200, func() {
			_, _ = j.visitor.Write(msg)
			if _, err := io.ReadFull(j.visitor, msg); err != nil {
				t.Fatal(err)
			}
		}); n > 0 && !raceEnabled() { // with the race detector, pools lose what they hold
			t.Errorf("%v allocations for a message there and back, want 0", n)
		}
		j.visitor.Close()
		j.service.Close()
		<-j.done
	})
}

// TestIdleRelayCostsLittle has relays that carried something and are idle. What a stream itself costs is not in it.
func TestIdleRelayCostsLittle(t *testing.T) {
	socket := ways()[0].a
	for _, tt := range []struct {
		way        way
		directions int // in which something moves
		kib        float64
	}{
		{way{"sockets", socket, socket}, 2, 3},
		{way{"a socket and a stream", socket, func(c upstream.Conn) upstream.Conn { return &silent{Conn: c} }}, 1, 2},
	} {
		t.Run(tt.way.name, func(t *testing.T) {
			const n = 200
			var sides [][2]upstream.Conn
			for range n {
				visitor, a := pair(t)
				b, service := pair(t)
				sides = append(sides, [2]upstream.Conn{tt.way.a(upstream.FromTCP(a)), tt.way.b(upstream.FromTCP(b))})
				say(t, visitor, "hello")
				say(t, service, "hello")
			}
			ctx, cancel := context.WithCancel(t.Context())
			var c Carrier
			var done []chan error
			moved := make(chan int, 2*n)
			before := spent()
			for _, s := range sides {
				done = append(done, between(ctx, &c, s[0], s[1], func(_ Direction, n int) { moved <- n }))
			}
			for range n * tt.directions {
				<-moved
			}
			const sleepers = 1 // a goroutine for all
			awaitGoroutines(before.goroutines + sleepers)
			after := spent()
			goroutines := float64(after.goroutines-before.goroutines) / n
			kib := float64(after.bytes-before.bytes) / n / 1024
			t.Logf("%.2f goroutines and %.1f KiB, of these %.1f of stacks", goroutines, kib, float64(after.stacks-before.stacks)/n/1024)
			// A few may be there for a moment, as those that time has called; but none for each.
			if goroutines > 0.1 || kib > tt.kib && !raceEnabled() {
				t.Errorf("%.2f goroutines and %.1f KiB for each, want none and %.0f", goroutines, kib, tt.kib)
			}
			cancel()
			for _, d := range done {
				<-d
			}
		})
	}
}

// drowsy is a socket that tells when the relay has stopped to copy from it for want of bytes.
type drowsy struct {
	upstream.Conn
	slept chan struct{}
}

func (d drowsy) SyscallConn() (syscall.RawConn, error) { return d.Conn.(syscall.Conn).SyscallConn() }

func (d drowsy) EndOfRead() error { return upstream.EndOfRead(d.Conn) }

func (d drowsy) SetReadDeadline(t time.Time) error {
	err := d.Conn.SetReadDeadline(t)
	if t.IsZero() {
		d.slept <- struct{}{}
	}
	return err
}

// eachDrowsyWay runs a test for all ways with a side that can be waited for. asleep waits until all such sides are.
func eachDrowsyWay(t *testing.T, test func(t *testing.T, w way, asleep func())) {
	socket := func(slept chan struct{}) func(upstream.Conn) upstream.Conn {
		return func(c upstream.Conn) upstream.Conn { return drowsy{c, slept} }
	}
	stream := func(c upstream.Conn) upstream.Conn { return pumped{c} }
	for _, tt := range []struct {
		name     string
		way      func(s chan struct{}) way
		sleepers int
	}{
		{"sockets", func(s chan struct{}) way { return way{"", socket(s), socket(s)} }, 2},
		{"a socket and a stream", func(s chan struct{}) way { return way{"", socket(s), stream} }, 1},
		{"a stream and a socket", func(s chan struct{}) way { return way{"", stream, socket(s)} }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			slept := make(chan struct{}, 100)
			test(t, tt.way(slept), func() {
				for range tt.sleepers {
					<-slept
				}
			})
		})
	}
}

func TestRelayWakesUp(t *testing.T) {
	eachDrowsyWay(t, func(t *testing.T, w way, asleep func()) {
		j := w.join(t, t.Context())
		go echo(j.service)
		for _, words := range []string{"hello", "again", "and again"} {
			asleep()
			say(t, j.visitor, words)
			got := make([]byte, len(words))
			if _, err := io.ReadFull(j.visitor, got); err != nil || string(got) != words {
				t.Fatalf("read %q, %v, want %q", got, err, words)
			}
		}
		asleep()
		_ = j.visitor.CloseWrite()
		j.service.Close()
		if err := <-j.done; err != nil {
			t.Errorf("relay gave %v", err)
		}
	})
}

// TestSleepingRelayHearsTheEnd has each kind of end come while nothing is copied.
func TestSleepingRelayHearsTheEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		ends func(j *joined, cancel context.CancelFunc)
		ok   bool
	}{
		{"both sides end", func(j *joined, _ context.CancelFunc) {
			_ = j.visitor.CloseWrite()
			_ = j.service.CloseWrite()
		}, true},
		{"the visitor resets", func(j *joined, _ context.CancelFunc) { _ = upstream.FromTCP(j.visitor).Reset() }, false},
		{"the service resets", func(j *joined, _ context.CancelFunc) { _ = upstream.FromTCP(j.service).Reset() }, false},
		{"the context ends", func(_ *joined, cancel context.CancelFunc) { cancel() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachDrowsyWay(t, func(t *testing.T, w way, asleep func()) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				j := w.join(t, ctx)
				asleep()
				tt.ends(j, cancel)
				if err := <-j.done; (err == nil) != tt.ok {
					t.Errorf("relay gave %v", err)
				}
			})
		})
	}
}

// silent is a stream that pulls and has nothing to push.
type silent struct {
	upstream.Conn
	once sync.Once
	done func(readErr, writeErr error)
}

func (s *silent) Pull(src io.Reader, moved func(int)) (readErr, writeErr error) {
	return pump(s.Conn, src.(net.Conn), moved)
}

func (s *silent) Push(_ net.Conn, _ func(int), done func(readErr, writeErr error)) { s.done = done }

func (s *silent) Reset() error {
	s.once.Do(func() { s.done(net.ErrClosed, nil) })
	return s.Conn.Reset()
}

// awaitGoroutines waits until no more than most are left, or for long enough.
func awaitGoroutines(most int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if runtime.NumGoroutine() <= most {
			return
		}
		<-tick.C
	}
}

type memorySpent struct{ goroutines, bytes, stacks int }

// spent is what the process has in use, after what nobody needs has gone.
func spent() memorySpent {
	debug.FreeOSMemory() // collects, which shrinks stacks
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memorySpent{runtime.NumGoroutine(), int(m.HeapAlloc + m.StackInuse), int(m.StackInuse)}
}

// raceEnabled says whether the race detector is on, which makes everything larger.
func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}
