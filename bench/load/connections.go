package load

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Connections are visitors that dial, ask once and close, over and over.
type Connections struct {
	stop atomic.Bool
	done sync.WaitGroup

	mu     sync.Mutex
	times  Times
	failed int
}

// StartConnections starts so many visitors, each of which has one connection at a time.
func StartConnections(addr string, visitors int) *Connections {
	c := new(Connections)
	for range visitors {
		c.done.Go(func() {
			for !c.stop.Load() {
				begin := time.Now()
				err := Fresh(addr, "/")
				c.note(time.Since(begin), err)
			}
		})
	}
	return c
}

func (c *Connections) note(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed++
		return
	}
	c.times = append(c.times, took)
}

// Take gives what ended since the last call.
func (c *Connections) Take() (times Times, failed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	times, failed = c.times, c.failed
	c.times, c.failed = nil, 0
	return times, failed
}

// Stop ends the visitors after what they are at.
func (c *Connections) Stop() {
	c.stop.Store(true)
	c.done.Wait()
}

// Idle are open connections that say nothing.
type Idle struct{ conns []net.Conn }

// OpenIdle opens n connections, each with one request, 32 at a time. The error is that of the first one that failed.
func OpenIdle(addr string, n int) (*Idle, error) {
	var (
		mu    sync.Mutex
		idle  Idle
		first error
		done  sync.WaitGroup
		next  atomic.Int64
	)
	for range 32 {
		done.Go(func() {
			for next.Add(1) <= int64(n) {
				c, err := net.DialTimeout("tcp", addr, patience)
				if err == nil {
					err = Request(c, "/")
				}
				mu.Lock()
				if c != nil {
					idle.conns = append(idle.conns, c)
				}
				if err != nil && first == nil {
					first = err
					next.Store(int64(n))
				}
				mu.Unlock()
			}
		})
	}
	done.Wait()
	if first != nil {
		idle.Close()
		return nil, first
	}
	return &idle, nil
}

// Alive asks on every connection once more, 64 at a time, and counts those that answer.
func (i *Idle) Alive() int {
	var (
		next, alive atomic.Int64
		done        sync.WaitGroup
	)
	for range 64 {
		done.Go(func() {
			for n := next.Add(1); n <= int64(len(i.conns)); n = next.Add(1) {
				if Request(i.conns[n-1], "/") == nil {
					alive.Add(1)
				}
			}
		})
	}
	done.Wait()
	return int(alive.Load())
}

// Close closes all.
func (i *Idle) Close() {
	for _, c := range i.conns {
		c.Close()
	}
}
