//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An echoer is a TCP service that sends everything back, and says how many visitors it has.
type echoer struct {
	addr string
	open atomic.Int64
}

func startEcho(t *testing.T) *echoer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echoer{addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				e.open.Add(1)
				defer e.open.Add(-1)
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				_, _ = io.Copy(c, c) // the visitor sees what is missing
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wait.Wait() })
	return e
}

// An echoed connection is one to an echo service that stays open.
type echoed struct {
	net.Conn
	lines *bufio.Reader
	sent  int
}

func dialEcho(t *testing.T, addr string) *echoed {
	t.Helper()
	accepts(t, "tcp", addr)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &echoed{Conn: c, lines: bufio.NewReader(c)}
}

// echoes sends a line and waits for it.
func (e *echoed) echoes(t *testing.T, within time.Duration) (took time.Duration) {
	t.Helper()
	begin := time.Now()
	e.sent++
	want := fmt.Sprintf("line %d\n", e.sent)
	_ = e.SetDeadline(begin.Add(within)) // fails only on a closed connection
	if _, err := e.Write([]byte(want)); err != nil {
		t.Fatalf("the open connection: write: %v", err)
	}
	if got, err := e.lines.ReadString('\n'); err != nil || got != want {
		t.Fatalf("the open connection: sent %q, got %q after %v: %v", want, got, time.Since(begin), err)
	}
	return time.Since(begin)
}
