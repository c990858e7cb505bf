//go:build linux

package e2e

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// A cutter is a TCP relay that can end all its connections with a reset and refuse new ones, as a router that restarts.
type cutter struct {
	addr, to string
	wait     sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener          // nil while cut
	open     map[*net.TCPConn]bool // both ends of each connection
}

// startCutter relays from a free address to another, until the test ends.
func startCutter(t *testing.T, to string) *cutter {
	t.Helper()
	c := &cutter{addr: freeAddr(t), to: to, open: map[*net.TCPConn]bool{}}
	c.mend(t)
	t.Cleanup(func() { c.cut(t); c.wait.Wait() })
	return c
}

// mend lets connections through again.
func (c *cutter) mend(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.listener = l
	c.mu.Unlock()
	c.wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.wait.Go(func() { c.relay(conn.(*net.TCPConn)) })
		}
	})
}

// cut resets all connections, wherever in their bytes they are.
func (c *cutter) cut(*testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil {
		c.listener.Close()
		c.listener = nil
	}
	for conn := range c.open {
		_ = conn.SetLinger(0) // fails only on a closed connection
		conn.Close()
	}
	clear(c.open)
}

// relay takes the connection over.
func (c *cutter) relay(from *net.TCPConn) {
	if !c.hold(from) {
		return
	}
	defer c.drop(from)
	conn, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	to := conn.(*net.TCPConn)
	if !c.hold(to) {
		return
	}
	defer c.drop(to)
	var back sync.WaitGroup
	back.Go(func() { pass(from, to) })
	pass(to, from)
	back.Wait()
}

// pass ends one direction only, as a router would.
func pass(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from) // both ends see what is missing
	_ = to.CloseWrite()      // fails only on a closed connection
}

// hold takes a connection in, or resets it when it came too late.
func (c *cutter) hold(conn *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener == nil {
		_ = conn.SetLinger(0) // fails only on a closed connection
		conn.Close()
		return false
	}
	c.open[conn] = true
	return true
}

func (c *cutter) drop(conn *net.TCPConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.Close()
	delete(c.open, conn)
}

func TestCutterResetsAndRefuses(t *testing.T) {
	l := startLedger(t)
	c := startCutter(t, l.Addr().String())
	if v := visitLedger(c.addr, patience); v.err != nil {
		t.Fatalf("through the relay: %v", v.err)
	}
	open, err := net.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := io.WriteString(open, strings.Repeat("x", nonceSize)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(open, make([]byte, nonceSize)); err != nil { // the relay has it
		t.Fatal(err)
	}
	for range 2 {
		c.cut(t)
		if v := visitLedger(c.addr, patience); v.err == nil || !strings.Contains(v.err.Error(), "refused") {
			t.Errorf("while cut: %v, want it refused", v.err)
		}
		c.mend(t)
		if v := visitLedger(c.addr, patience); v.err != nil {
			t.Errorf("mended: %v", v.err)
		}
	}
	var n net.Error
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.As(err, &n) && n.Timeout() {
		t.Errorf("a connection from before the cut: %v", err)
	}
}
