package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// answerer answers what comes with the same, until the end of the test.
func answerer(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, MaxDatagram)
		for {
			n, from, err := c.ReadFrom(p)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			_, _ = c.WriteTo(p[:n], from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// heard is what a socket was handed, as text.
type heard struct {
	said chan string
	errs chan error
}

func attend(t *testing.T, p *Poller, to netip.AddrPort) (*Polled, heard) {
	t.Helper()
	c, err := p.Dial(to)
	if err != nil {
		t.Fatal(err)
	}
	h := heard{make(chan string, 1000), make(chan error, 10)}
	if err := c.Attend(func(p []byte, err error) {
		if err != nil {
			h.errs <- err
			return
		}
		h.said <- string(p)
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, h
}

func (h heard) next(t *testing.T) string {
	t.Helper()
	select {
	case s := <-h.said:
		return s
	case err := <-h.errs:
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was heard")
	}
	return ""
}

func TestPollerHearsManySockets(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		var p Poller
		to := answerer(t, host)
		const sockets, datagrams = 30, 300 // not more than the service has room for
		var asking sync.WaitGroup
		for i := range sockets {
			c, h := attend(t, &p, to)
			asking.Go(func() {
				for n := range datagrams { // some empty, some long
					want := fmt.Sprintf("%*d", n%3*100, i*datagrams+n)[:n%3*100]
					if _, err := c.Write([]byte(want)); err != nil {
						t.Errorf("%s, socket %d: %v", host, i, err)
						return
					}
					select {
					case got := <-h.said:
						if got != want {
							t.Errorf("%s, socket %d, datagram %d: heard %d bytes of another one", host, i, n, len(got))
							return
						}
					case <-time.After(10 * time.Second):
						t.Errorf("%s, socket %d, datagram %d: nothing was heard", host, i, n)
						return
					}
				}
			})
		}
		asking.Wait()
		p.Close()
	}
}

func TestPollerTellsOfARefusal(t *testing.T) {
	var p Poller
	defer p.Close()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	c, h := attend(t, &p, gone.LocalAddr().(*net.UDPAddr).AddrPort())
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-h.errs:
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("heard %v, want a refusal", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the refusal was not told")
	}
}

// A descriptor's number is soon another socket's: nobody hears what was another one's, and nothing is left.
func TestPollerForgetsWhatIsClosed(t *testing.T) {
	var p Poller
	to := answerer(t, "127.0.0.1")
	for i := range 2000 {
		c, h := attend(t, &p, to)
		want := fmt.Sprint(i)
		if _, err := c.Write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // the answer comes to nobody
			_ = c.Close()
			continue
		}
		if got := h.next(t); got != want {
			t.Fatalf("heard %q, want %q", got, want)
		}
		_ = c.Close()
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("closed twice: %v", err)
		}
		if _, err := c.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("a write after the end: %v", err)
		}
	}
	if n := len(p.sockets); n != 0 {
		t.Errorf("%d sockets are left", n)
	}
	p.Close()
	c, err := p.Dial(to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Attend(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("attended after the end: %v", err)
	}
}
