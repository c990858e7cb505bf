package longway

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := lane{rate: 1000, delay: 20 * time.Millisecond}
		if got, want := l.send(begin, 100).Sub(begin), 120*time.Millisecond; got != want {
			t.Errorf("first parcel: got %v, want %v", got, want)
		}
		if got, want := l.send(begin, 50).Sub(begin), 170*time.Millisecond; got != want {
			t.Errorf("behind the first: got %v, want %v", got, want)
		}
		if got, want := l.backlog(), 150*time.Millisecond; got != want {
			t.Errorf("backlog: got %v, want %v", got, want)
		}
		time.Sleep(time.Second)
		if got, want := l.send(time.Now(), 10).Sub(begin), 1030*time.Millisecond; got != want {
			t.Errorf("after a pause: got %v, want %v", got, want)
		}
	})
}

func TestBytesComeLateAndWhole(t *testing.T) {
	const rtt = 60 * time.Millisecond
	far := listen(t)
	go func() {
		c, err := far.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	near := listen(t)
	go New(rtt, 0).Serve(near, far.Addr().String())

	c, err := net.Dial("tcp", near.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 4)
	for i, least := range []time.Duration{2 * rtt, rtt} { // the first one pays for the handshake too
		begin := time.Now()
		_, _ = c.Write([]byte("ping"))
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < least || string(buf) != "ping" {
			t.Errorf("echo %d: %q after %v, want at least %v", i, buf, took, least)
		}
	}
	c.(*net.TCPConn).CloseWrite()
	if _, err := c.Read(buf); err != io.EOF {
		t.Errorf("end: got %v, want EOF", err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
