package nowait_test

import (
	"io"
	"net"
	"os"
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

// pair is both ends of a connection.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if far, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

func TestNothingWaits(t *testing.T) {
	if !nowait.Works {
		t.Skip("not on this system")
	}
	for _, tt := range []struct {
		name        string
		read, write func(fd uintptr, p []byte) (n int, again bool, err error)
	}{{"read and write", nowait.Read, nowait.Write}, {"receive and send", nowait.Receive, nowait.Send}} {
		t.Run(tt.name, func(t *testing.T) { nothingWaits(t, tt.read, tt.write) })
	}
}

func nothingWaits(t *testing.T, read, write func(fd uintptr, p []byte) (n int, again bool, err error)) {
	near, far := pair(t)
	use(t, far, func(fd uintptr) {
		if n, again, err := read(fd, make([]byte, 8)); n != 0 || !again || err != nil {
			t.Errorf("a read of nothing gives %d, %t, %v", n, again, err)
		}
	})
	written := 0
	use(t, near, func(fd uintptr) {
		for {
			n, again, err := write(fd, make([]byte, 64<<10))
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
		if n, again, err := read(fd, make([]byte, 8)); n != 8 || again || err != nil {
			t.Errorf("a read gives %d, %t, %v", n, again, err)
		}
	})
	far.Close()
	near.SetLinger(0)
	use(t, near, func(fd uintptr) {
		_, _, _ = write(fd, []byte("x")) // hears of the reset, or has it sent
		if _, _, err := write(fd, []byte("x")); err == nil {
			t.Error("a write to a connection that was reset fails not")
		}
	})
}

func TestReceiveAndSendTakeWhatIsNoSocket(t *testing.T) {
	if !nowait.Works {
		t.Skip("not on this system")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if n, again, err := nowait.Send(w.Fd(), []byte("hello")); n != 5 || again || err != nil {
		t.Errorf("a send gives %d, %t, %v", n, again, err)
	}
	p := make([]byte, 8)
	if n, again, err := nowait.Receive(r.Fd(), p); n != 5 || again || err != nil || string(p[:n]) != "hello" {
		t.Errorf("a receive gives %q, %t, %v", p[:n], again, err)
	}
}

func TestSpliceMovesBytesAndTheEnd(t *testing.T) {
	if !nowait.Splices {
		t.Skip("not on this system")
	}
	near, far := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	out, in := r.Fd(), w.Fd()
	use(t, far, func(fd uintptr) {
		if n, again, err := nowait.Splice(fd, in, 100); n != 0 || !again || err != nil {
			t.Errorf("a splice of nothing gives %d, %t, %v", n, again, err)
		}
	})
	if _, err := near.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	use(t, far, func(fd uintptr) {
		if n, again, err := nowait.Splice(fd, in, 100); n != 5 || again || err != nil {
			t.Errorf("a splice gives %d, %t, %v", n, again, err)
		}
		if n, again, err := nowait.Splice(out, fd, 5); n != 5 || again || err != nil {
			t.Errorf("a splice back gives %d, %t, %v", n, again, err)
		}
	})
	got := make([]byte, 5)
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(got); err != io.EOF { // waits for it
		t.Errorf("read %v", err)
	}
	use(t, far, func(fd uintptr) {
		if n, again, err := nowait.Splice(fd, in, 100); n != 0 || again || err != nil {
			t.Errorf("a splice at the end gives %d, %t, %v", n, again, err)
		}
	})
}
