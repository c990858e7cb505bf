//go:build linux

package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An ender is a service that ends its connections in the way that the visitor's first byte asks for.
type ender struct {
	addr string
	saw  chan error // how the visitor ended, as the service saw it; nil for a clean end
}

// What the first byte asks an ender for.
const (
	answerAfterEnd = 'a' // read to the end, wait a second, answer, end
	resetAtOnce    = 'r' // a few bytes, then a reset
	tellMyEnd      = 'e' // read until the visitor ends, and report how
	endFirst       = 'f' // end the own direction at once, and report how many bytes came after that
)

// afterEnd is how much the visitor sends after endFirst.
const afterEnd = 1 << 20

func startEnder(t *testing.T) *ender {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &ender{addr: l.Addr().String(), saw: make(chan error, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				e.serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wait.Wait() })
	return e
}

func (e *ender) serve(c *net.TCPConn) {
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	var ask [1]byte
	if _, err := io.ReadFull(c, ask[:]); err != nil {
		return // accepts, or a check
	}
	switch ask[0] {
	case answerAfterEnd:
		b, err := io.ReadAll(c)
		if err != nil {
			return
		}
		<-time.After(time.Second) // the answer takes its time: that is what is tested
		_, _ = io.WriteString(c, strings.ToUpper(string(b)))
	case resetAtOnce:
		_, _ = io.WriteString(c, "some")
		var one [1]byte
		_, _ = c.Read(one[:]) // the visitor has them
		_ = c.SetLinger(0)
	case tellMyEnd:
		_, _ = io.WriteString(c, "ok")
		_, err := io.Copy(io.Discard, c)
		e.saw <- err
	case endFirst:
		_ = c.CloseWrite()
		n, err := io.Copy(io.Discard, c)
		if err == nil && n != afterEnd {
			err = io.ErrShortWrite
		}
		e.saw <- err
	}
}

// How a connection ends is passed on as it is, through the balancer and through a tunnel: half-close as half-close, a
// reset as a reset. HAProxy and nginx make a clean end of a reset, which hides that something is missing.
func TestLBPassesOnHowAConnectionEnds(t *testing.T) {
	four, six, behind := startEnder(t), startEnder(t), startEnder(t)
	lb, v6, tunnel := freeAddr(t), freeAddrOn(t, "::1"), freeAddr(t)
	startLB(t, `
entrypoints:
  - {name: four, addr: "`+lb+`", routes: [{upstream: four}]}
  - {name: six, addr: "`+v6+`", routes: [{upstream: six}]}
upstreams:
  - {name: four, members: `+memberList(four.addr)+`}
  - {name: six, members: `+memberList(six.addr)+`}
`)
	s := startServer(t)
	s.clientProgram(t, "tcp client", "--upstream", port(t, tunnel)+"="+behind.addr)
	accepts(t, "tcp", tunnel)
	for _, c := range []struct {
		name, addr string
		service    *ender
	}{{"lb", lb, four}, {"lb, IPv6", v6, six}, {"tunnel", tunnel, behind}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			endings(t, c.service, c.addr)
		})
	}
}

func endings(t *testing.T, e *ender, addr string) {
	t.Helper()
	dial := func(ask byte) *net.TCPConn {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
		if _, err := c.Write([]byte{ask}); err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
	saw := func(t *testing.T) error {
		t.Helper()
		select {
		case err := <-e.saw:
			return err
		case <-time.After(patience):
			t.Fatal("the service has not seen an end")
			return nil
		}
	}

	c := dial(answerAfterEnd)
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if b, err := io.ReadAll(c); err != nil || string(b) != "QUESTION" {
		t.Errorf("half-close of the visitor: got %q after %v: %v", b, time.Since(begin), err)
	}

	c = dial(resetAtOnce)
	var some [4]byte
	if _, err := io.ReadFull(c, some[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(some[:]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the service resets: the visitor has %v, want a reset", err)
	}

	for _, reset := range []bool{false, true} {
		c = dial(tellMyEnd)
		if _, err := io.ReadFull(c, some[:2]); err != nil {
			t.Fatal(err)
		}
		if reset {
			_ = c.SetLinger(0) // fails only on a closed connection
		}
		c.Close()
		if err := saw(t); reset != errors.Is(err, syscall.ECONNRESET) || !reset && err != nil {
			t.Errorf("the visitor ends, by a reset %v: the service has %v", reset, err)
		}
	}

	c = dial(endFirst)
	if n, err := io.Copy(io.Discard, c); err != nil || n != 0 {
		t.Errorf("half-close of the service: the visitor has %d bytes, %v", n, err)
	}
	if _, err := c.Write(make([]byte, afterEnd)); err != nil {
		t.Errorf("after the half-close of the service: %v", err)
	}
	c.Close()
	if err := saw(t); err != nil {
		t.Errorf("after its half-close the service has %v, want all that the visitor sent", err)
	}
}
