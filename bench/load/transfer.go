package load

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"culvert/bench/service"
)

// chunk is what a visitor reads or writes at a time.
const chunk = 128 << 10

// Direction is the way of a transfer, as the visitor sees it.
type Direction string

// The directions.
const (
	Down Direction = "down"
	Up   Direction = "up"
)

// Transfers are transfers without end. Close ends them.
type Transfers struct {
	conns []net.Conn
	got   atomic.Int64
	ended atomic.Int64
	done  sync.WaitGroup
}

// StartTransfers opens n of them.
func StartTransfers(addr string, n int, d Direction) (*Transfers, error) {
	work := (*Transfers).download
	if d == Up {
		work = (*Transfers).upload
	}
	return start(addr, n, work)
}

// StartStalled opens n downloads whose visitors never read.
func StartStalled(addr string, n int) (*Transfers, error) {
	return start(addr, n, func(_ *Transfers, c net.Conn) {
		_, _ = c.Write([]byte(Head("/down")))
	})
}

func start(addr string, n int, work func(*Transfers, net.Conn)) (*Transfers, error) {
	t := new(Transfers)
	for range n {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Close()
			return nil, err
		}
		t.conns = append(t.conns, c)
		t.done.Go(func() { work(t, c) })
	}
	return t, nil
}

func (t *Transfers) download(c net.Conn) {
	defer t.ended.Add(1)
	if _, err := c.Write([]byte(Head("/down"))); err != nil {
		return
	}
	buf := make([]byte, chunk)
	for {
		n, err := c.Read(buf)
		t.got.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func (t *Transfers) upload(c net.Conn) {
	defer t.ended.Add(1)
	if _, err := fmt.Fprintf(c, "POST /up HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n", int64(service.Endless)); err != nil {
		return
	}
	buf := make([]byte, chunk)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// Got is how many bytes downloads have read. Uploads are counted by the service.
func (t *Transfers) Got() int64 { return t.got.Load() }

// Ended is how many ended by themselves, which none should.
func (t *Transfers) Ended() int64 { return t.ended.Load() }

// Close ends all and waits for their goroutines.
func (t *Transfers) Close() {
	for _, c := range t.conns {
		c.Close()
	}
	t.done.Wait()
}
