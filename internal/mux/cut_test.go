package mux_test

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// fault is what happens to a cable at a chosen byte.
type fault int

const (
	noFault   fault = iota
	torn            // both ends fail at once; nothing more of what was in flight arrives
	drained         // the writer fails at once, the reader reads what was in flight and then fails
	ended           // the same, but the reader gets io.EOF
	blackhole       // both directions fall silent; nobody hears of it
	deaf            // only this direction falls silent
)

// cut says when a direction of a cable breaks: behind so many bytes of that direction.
type cut struct {
	how fault
	at  int64
}

// cableConfig says what a cable is like. The zero value is a perfect one.
type cableConfig struct {
	rng     *rand.Rand    // for the sizes of reads; nil reads as much as there is
	latency time.Duration // one way
	room    int           // bytes that one direction holds; 256 KiB
	cuts    [2]cut        // of a's bytes, of b's bytes
	abrupt  bool          // closing an end loses what the other has not yet read, as a TCP reset does
}

// cable is two connections joined in memory. Unlike net.Pipe it holds bytes in flight, which are what a cut loses.
type cable struct {
	cfg   cableConfig
	mu    sync.Mutex
	moved *sync.Cond
	ways  [2]way
	ends  [2]*cableEnd
}

// way is one direction: from end i to the other.
type way struct {
	flight  []segment
	held    int       // bytes in flight
	sent    int64     // bytes ever written
	silent  bool      // what is written disappears, what is in flight stays there
	wakes   time.Time // when a timer will wake the reader
	readErr error     // behind what is in flight
	wrErr   error
}

type segment struct {
	due time.Time
	p   []byte
}

type cableEnd struct {
	*cable
	side            int
	closed          bool
	readBy, writeBy deadline
}

func newCable(cfg cableConfig) (a, b *cableEnd) {
	if cfg.room == 0 {
		cfg.room = 256 << 10
	}
	c := &cable{cfg: cfg}
	c.moved = sync.NewCond(&c.mu)
	c.ends = [2]*cableEnd{{cable: c}, {cable: c, side: 1}}
	return c.ends[0], c.ends[1]
}

func (e *cableEnd) out() *way { return &e.ways[e.side] }
func (e *cableEnd) in() *way  { return &e.ways[1-e.side] }

func (e *cableEnd) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		w := e.in()
		switch {
		case e.closed:
			return 0, net.ErrClosed
		case e.readBy.over():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(w.flight) > 0 && !w.silent:
			if wait := time.Until(w.flight[0].due); wait > 0 {
				if w.wakes != w.flight[0].due {
					w.wakes = w.flight[0].due
					e.wakeIn(wait)
				}
				break
			}
			n := e.take(w, p)
			e.moved.Broadcast()
			return n, nil
		case w.readErr != nil:
			return 0, w.readErr
		}
		e.moved.Wait()
	}
}

// take moves bytes out of flight, at times fewer than it could.
func (e *cableEnd) take(w *way, p []byte) int {
	most := len(p)
	if r := e.cfg.rng; r != nil && r.IntN(4) == 0 {
		most = min(most, 1+r.IntN(40))
	}
	total := 0
	for total < most && len(w.flight) > 0 && !time.Now().Before(w.flight[0].due) {
		n := copy(p[total:most], w.flight[0].p)
		total += n
		if w.flight[0].p = w.flight[0].p[n:]; len(w.flight[0].p) == 0 {
			w.flight = w.flight[1:]
		}
	}
	w.held -= total
	return total
}

func (e *cableEnd) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	total := 0
	for {
		w := e.out()
		switch {
		case e.closed:
			return total, net.ErrClosed
		case w.wrErr != nil:
			return total, w.wrErr
		case e.writeBy.over():
			return total, os.ErrDeadlineExceeded
		case total == len(p):
			return total, nil
		case w.held < e.cfg.room:
			n := min(e.cfg.room-w.held, len(p)-total)
			total += e.put(w, p[total:total+n])
			e.moved.Broadcast()
		default:
			e.moved.Wait()
		}
	}
}

// put takes as much of p as comes before the cut, then cuts.
func (e *cableEnd) put(w *way, p []byte) int {
	c := &e.cfg.cuts[e.side]
	now := c.how != noFault && w.sent+int64(len(p)) >= c.at
	if now {
		p = p[:max(0, c.at-w.sent)]
	}
	w.held += len(p)
	w.sent += int64(len(p))
	if !w.silent && len(p) > 0 {
		w.flight = append(w.flight, segment{time.Now().Add(e.cfg.latency), append([]byte(nil), p...)})
	}
	if now {
		how := c.how
		e.cfg.cuts = [2]cut{}
		e.breakNow(how)
	}
	return len(p)
}

// breakNow applies a fault that end e's direction met. The mutex is held.
func (e *cableEnd) breakNow(how fault) {
	out, in := e.out(), e.in()
	switch how {
	case torn:
		out.flight, in.flight = nil, nil
		out.readErr, in.readErr = syscall.ECONNRESET, syscall.ECONNRESET
		out.wrErr, in.wrErr = syscall.EPIPE, syscall.EPIPE
	case drained, ended:
		out.readErr, in.readErr = syscall.ECONNRESET, syscall.ECONNRESET
		if how == ended {
			out.readErr = io.EOF
		}
		out.wrErr, in.wrErr = syscall.EPIPE, syscall.EPIPE
	case blackhole:
		out.silent, in.silent = true, true
	case deaf:
		out.silent = true
	}
	e.moved.Broadcast()
}

// Break applies a fault now, as if end e had just met it.
func (e *cableEnd) Break(how fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.breakNow(how)
}

func (e *cableEnd) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	e.closed = true
	out, in := e.out(), e.in()
	if out.readErr == nil {
		out.readErr = io.EOF
	}
	if !in.silent && in.wrErr == nil {
		in.wrErr = syscall.EPIPE
	}
	if e.cfg.abrupt && !out.silent {
		out.flight, out.readErr = nil, syscall.ECONNRESET
	}
	if out.silent { // the goodbye is lost like everything else
		out.readErr = nil
	}
	in.flight = nil
	e.moved.Broadcast()
	return nil
}

// wakeIn wakes everyone after a while. The mutex is held.
func (c *cable) wakeIn(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.moved.Broadcast()
	})
}

// deadline is one of an end's, with the timer that wakes those who wait.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (e *cableEnd) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *cableEnd) SetReadDeadline(t time.Time) error { return e.setDeadline(&e.readBy, t) }

func (e *cableEnd) SetWriteDeadline(t time.Time) error { return e.setDeadline(&e.writeBy, t) }

func (e *cableEnd) setDeadline(d *deadline, t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	*d = deadline{at: t}
	if left := time.Until(t); !t.IsZero() && left > 0 {
		d.timer = e.wakeIn(left)
	}
	e.moved.Broadcast()
	return nil
}

type cableAddr struct{}

func (cableAddr) Network() string { return "cable" }
func (cableAddr) String() string  { return "cable" }

func (e *cableEnd) LocalAddr() net.Addr  { return cableAddr{} }
func (e *cableEnd) RemoteAddr() net.Addr { return cableAddr{} }

// carrierEnd is a cable's end as a carrier gives it: it takes buffers over, and spoils them once they are sent.
type carrierEnd struct{ *cableEnd }

// carrierHeadroom is what a WebSocket's masked header may need.
const carrierHeadroom = 14

func (c carrierEnd) Headroom() int { return carrierHeadroom }

func (c carrierEnd) WriteOwned(buf []byte) error {
	_, err := c.Write(buf[carrierHeadroom:])
	for i := range buf {
		buf[i] ^= 0x5a
	}
	return err
}

// Pending is how much a Read would give without waiting.
func (c carrierEnd) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, s := range c.in().flight {
		if c.in().silent || time.Now().Before(s.due) {
			break
		}
		n += len(s.p)
	}
	return n
}
