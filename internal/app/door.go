package app

import (
	"net"
	"sync"
)

// door is a listener that can stop accepting without an error for those above it, who are still busy with what it accepted.
type door struct {
	net.Listener
	left, closed chan struct{}
	leaving      sync.Once
	closing      sync.Once
}

func newDoor(l net.Listener) *door {
	return &door{Listener: l, left: make(chan struct{}), closed: make(chan struct{})}
}

// leave closes the socket. Accept then waits for Close.
func (d *door) leave() {
	d.leaving.Do(func() {
		close(d.left)
		_ = d.Listener.Close()
	})
}

// Accept gives the next connection.
func (d *door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err == nil {
		return c, nil
	}
	select {
	case <-d.left:
		<-d.closed
		return nil, net.ErrClosed
	default:
		return nil, err
	}
}

// Close stops accepting.
func (d *door) Close() error {
	var err error
	d.closing.Do(func() {
		close(d.closed)
		err = d.Listener.Close()
	})
	return err
}
