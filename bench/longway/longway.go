// Package longway makes a path on loopback behave like a long one: a TCP relay with a delay and a rate.
//
// All its connections share the rate and a queue of 30 ms, in each direction apart. A connection's first byte comes a
// round trip late, as after a handshake. Nothing is lost or reordered. What it cannot show is how TCP itself copes with
// the delay: the ends talk to the relay's sockets.
package longway

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// queue is how much may wait for the rate, as time.
const queue = 30 * time.Millisecond

// readBuffer bounds what the relay's own sockets add to that queue.
const readBuffer = 256 << 10

// Way is a path between two places. Use New.
type Way struct {
	rtt      time.Duration
	up, down lane
}

// New makes a path of a round-trip time and bytes a second in each direction, 0 for no limit.
func New(rtt time.Duration, rate float64) *Way {
	return &Way{rtt: rtt, up: lane{rate: rate, delay: rtt / 2}, down: lane{rate: rate, delay: rtt / 2}}
}

// Serve leads what a listener accepts to an address, until accepting fails.
func (w *Way) Serve(l net.Listener, to string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go w.lead(c.(*net.TCPConn), to)
	}
}

func (w *Way) lead(near *net.TCPConn, to string) {
	defer near.Close()
	c, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	far := c.(*net.TCPConn)
	defer far.Close()
	_, _ = near.SetReadBuffer(readBuffer), far.SetReadBuffer(readBuffer)
	began := time.Now()
	var both sync.WaitGroup
	both.Go(func() { w.up.carry(far, near, began.Add(w.rtt+w.rtt/2)) })
	both.Go(func() { w.down.carry(near, far, began.Add(w.rtt)) })
	both.Wait()
}

// parcel is what one read brought, and when it is due at the other end.
type parcel struct {
	bytes []byte
	due   time.Time
}

// lane is one direction, shared by all connections.
type lane struct {
	rate  float64 // bytes a second, 0 for no limit
	delay time.Duration

	mu   sync.Mutex
	free time.Time // when the last parcel has been sent
}

// carry copies one connection's direction to its end, nothing of it before first.
func (l *lane) carry(dst, src *net.TCPConn, first time.Time) {
	parcels := make(chan parcel, 1<<15) // more than the delay and the queue hold
	go l.collect(parcels, src, dst, first)
	timer := time.NewTimer(0)
	defer timer.Stop()
	failed := false
	for p := range parcels {
		if failed {
			continue
		}
		until(timer, p.due)
		if _, err := dst.Write(p.bytes); err != nil {
			failed = true
			src.Close() // ends collect
		}
	}
	dst.CloseWrite()
}

func (l *lane) collect(parcels chan<- parcel, src, dst *net.TCPConn, first time.Time) {
	defer close(parcels)
	timer := time.NewTimer(0)
	defer timer.Stop()
	buf := make([]byte, 32<<10)
	for {
		for wait := l.backlog(); wait > queue; wait = l.backlog() {
			until(timer, time.Now().Add(wait-queue))
		}
		n, err := src.Read(buf)
		if n > 0 {
			due := l.send(time.Now(), n)
			if due.Before(first) {
				due = first
			}
			parcels <- parcel{append([]byte(nil), buf[:n]...), due}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = dst.SetLinger(0) // an abort stays one
			}
			return
		}
	}
}

// backlog is how long a parcel would wait for those before it.
func (l *lane) backlog() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.free)
}

// send puts n bytes behind all others and says when they are due at the other end.
func (l *lane) send(now time.Time, n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	if l.rate > 0 {
		l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	}
	return l.free.Add(l.delay)
}

// until waits for a point in time.
func until(timer *time.Timer, due time.Time) {
	wait := time.Until(due)
	if wait <= 0 {
		return
	}
	timer.Reset(wait)
	<-timer.C
}
