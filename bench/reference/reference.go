// Package reference is a tunnel to compare with: libp2p's yamux over the same WebSocket framing and the same TLS.
//
// It is what the product's data path was before its own multiplexer: a goroutine for each direction with a buffer of
// 32 KiB, one connection between server and client, one yamux stream for each visitor. The carrier below is today's, so
// that what differs is the multiplexer and the relay. All else is left out: there are no tokens, no answers to an open,
// no metrics and no second client, which makes it a fast reference.
package reference

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

// settings are those of the product's first form.
func settings() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = 10 * time.Second
	c.MaxIncomingStreams = 16384
	c.MaxStreamWindowSize = 4 << 20
	c.ReadBufSize = 16 << 10
	c.LogOutput = io.Discard
	return c
}

// half is a connection whose directions end apart.
type half interface {
	net.Conn
	CloseWrite() error
}

// relay copies both ways until both have ended, and closes both.
func relay(a, b half, buffers *sync.Pool) {
	defer a.Close()
	defer b.Close()
	var back sync.WaitGroup
	back.Go(func() { pass(a, b, buffers) })
	pass(b, a, buffers)
	back.Wait()
}

// pass copies one direction. What fails ends both.
func pass(dst, src half, buffers *sync.Pool) {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				abort(dst, src)
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = dst.CloseWrite() // its reader finds out
			return
		case err != nil:
			abort(dst, src)
			return
		}
	}
}

func abort(a, b half) {
	for _, c := range []half{a, b} {
		switch c := c.(type) {
		case *yamux.Stream:
			_ = c.Reset()
		case *net.TCPConn:
			_ = c.SetLinger(0)
			_ = c.Close()
		}
	}
}

func newBuffers() *sync.Pool { return &sync.Pool{New: func() any { return new([32 << 10]byte) }} }

// dial reaches the service.
func dial(addr string) (half, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	return c.(*net.TCPConn), nil
}
