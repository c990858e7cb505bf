package app

import (
	"errors"
	"net"
	"testing"
	"time"
)

func TestADoorThatIsLeft(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(ln)
	ended := make(chan error, 1)
	go func() {
		c, err := d.Accept()
		if err == nil {
			_ = c.Close()
		}
		ended <- err
	}()
	d.leave()
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("still accepts")
	}
	select {
	case err := <-ended:
		t.Errorf("accept ended before the door was closed: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	_ = d.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept ended with %v", err)
	}
	_ = d.Close()
}
