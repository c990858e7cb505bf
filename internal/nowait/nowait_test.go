package nowait_test

import (
	"net"
	"testing"

	"culvert/internal/nowait"
)

// use gives a connection's descriptor, as package net keeps it.
func use(t *testing.T, c *net.TCPConn, f func(fd uintptr)) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(f); err != nil {
		t.Fatal(err)
	}
}

func TestNothingWaits(t *testing.T) {
	if !nowait.Works {
		t.Skip("not on this system")
	}
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()

	use(t, far, func(fd uintptr) {
		if n, again, err := nowait.Read(fd, make([]byte, 8)); n != 0 || !again || err != nil {
			t.Errorf("a read of nothing gives %d, %t, %v", n, again, err)
		}
	})
	written := 0
	use(t, near, func(fd uintptr) {
		for {
			n, again, err := nowait.Write(fd, make([]byte, 64<<10))
			if err != nil {
				t.Errorf("write: %v", err)
			}
			if written += n; again || err != nil {
				return
			}
		}
	})
	if written == 0 {
		t.Error("nothing could be written")
	}
	use(t, far, func(fd uintptr) {
		if n, again, err := nowait.Read(fd, make([]byte, 8)); n != 8 || again || err != nil {
			t.Errorf("a read gives %d, %t, %v", n, again, err)
		}
	})
	far.Close()
	near.SetLinger(0)
	use(t, near, func(fd uintptr) {
		_, _, _ = nowait.Write(fd, []byte("x")) // hears of the reset, or has it sent
		if _, _, err := nowait.Write(fd, []byte("x")); err == nil {
			t.Error("a write to a connection that was reset fails not")
		}
	})
}
