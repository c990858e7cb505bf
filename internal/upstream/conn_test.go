package upstream

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// tcpPair is both ends of a connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln := listen(t, "tcp", "127.0.0.1:0")
	near, err := net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return near, c.(*net.TCPConn)
}

func TestResetIsReadAsReset(t *testing.T) {
	near, far := tcpPair(t)
	if err := FromTCP(near).Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := FromTCP(far).Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v, want connection reset", err)
	}
}

func TestResetIsReadAsResetAfterAWriteHeardOfIt(t *testing.T) {
	near, far := tcpPair(t)
	c := FromTCP(far)
	if err := FromTCP(near).Reset(); err != nil {
		t.Fatal(err)
	}
	for { // the kernel tells the first to ask
		if _, err := c.Write([]byte("x")); err != nil {
			break
		}
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v, want connection reset", err)
	}
}

func TestOrderlyEndIsReadAsEnd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		close func(Conn) error
	}{
		{"the peer ended its side", Conn.CloseWrite},
		{"the peer closed", Conn.Close},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := tcpPair(t)
			c := FromTCP(far)
			if err := tt.close(FromTCP(near)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := c.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("read gave %v, want EOF", err)
				}
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read after both ended gave %v, want EOF", err)
			}
		})
	}
}
