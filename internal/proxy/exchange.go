package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// Exchange carries datagrams between a flow's stream and a service, both ways, until either ends, nothing has gone either
// way for as long as idle, or the context ends. It owns both, and nothing is left of it when it returns. What cannot go at
// once is dropped. While nothing moves it holds no buffer.
//
// A service that fails has the stream reset, so that whoever opened it may go elsewhere; an idle one has it end.
func Exchange(ctx context.Context, stream, service upstream.Conn, idle time.Duration) error {
	x := &exchange{stream: stream, service: service, begun: time.Now()}
	stop := context.AfterFunc(ctx, func() { x.end(context.Cause(ctx), false) })
	defer stop()
	var timer *time.Timer
	timer = time.AfterFunc(idle, func() {
		if left := idle - (time.Since(x.begun) - time.Duration(x.moved.Load())); left > 0 {
			x.mu.Lock()
			defer x.mu.Unlock()
			if !x.over {
				timer.Reset(left)
			}
			return
		}
		x.end(errIdle, true)
	})
	defer timer.Stop()
	var back sync.WaitGroup
	back.Go(func() { x.carry(service, stream) })
	x.carry(stream, service)
	back.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

var errIdle = errors.New("no datagram for a long time")

type exchange struct {
	stream, service upstream.Conn
	begun           time.Time
	moved           atomic.Int64 // when a datagram went last, since begun

	mu   sync.Mutex
	over bool
	err  error // why; nil after an orderly end
}

// carry carries one way until that ends, which ends the other one.
func (x *exchange) carry(from, to upstream.Conn) {
	s := sourceOf(from)
	defer s.Release()
	for {
		p, err := s.Next()
		if errors.Is(err, io.EOF) {
			x.end(nil, true)
			return
		}
		if err == nil {
			x.moved.Store(int64(time.Since(x.begun)))
			_, err = to.Write(p)
		}
		if err != nil && !errors.Is(err, udp.ErrDropped) {
			x.end(fmt.Errorf("datagrams: %w", err), false)
			return
		}
	}
}

// end ends both sides, the first time that it is called.
func (x *exchange) end(err error, orderly bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return
	}
	x.over, x.err = true, err
	_ = x.service.Close()
	if !orderly {
		_ = x.stream.Reset()
		return
	}
	_ = x.stream.Close()
}
