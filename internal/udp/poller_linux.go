package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"

	"culvert/internal/epoll"

	"golang.org/x/sys/unix"
)

// Poller hears what many connected sockets get, with one goroutine and one buffer: a goroutine for each would take more
// memory than all else that a flow needs. The zero value is ready; Close ends it.
type Poller struct {
	mu      sync.Mutex
	epoll   *epoll.Epoll    // nil before the first socket
	sockets map[int]*Polled // by descriptor
	closed  bool
	running sync.WaitGroup
}

// Polled is a connected socket of a Poller. It is safe for concurrent use.
type Polled struct {
	poller *Poller
	to     netip.AddrPort
	handle func(p []byte, err error)

	mu sync.Mutex
	fd int // -1 when it is closed: the number may be another socket's then
}

// Dial makes a connected socket to an address without a zone. It sends nothing.
func (p *Poller) Dial(to netip.AddrPort) (*Polled, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	fd, err := connect(to)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(to), Err: err}
	}
	return &Polled{poller: p, to: to, fd: fd}, nil
}

// connect makes the socket with fewer system calls than package net makes.
func connect(to netip.AddrPort) (fd int, err error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// Attend has what comes from now on, and what has come, handed over, or the error of a datagram that was sent: by the
// Poller's goroutine, which must not be held up. p may not be kept. It is called once.
func (c *Polled) Attend(handle func(p []byte, err error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return net.ErrClosed
	}
	c.handle = handle
	return c.poller.add(c)
}

// add has the kernel tell of a socket. The caller holds the socket's mutex.
func (p *Poller) add(c *Polled) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(); err != nil {
		return err
	}
	if err := p.epoll.Each(c.fd, uint64(c.fd)); err != nil {
		return err
	}
	p.sockets[c.fd] = c
	return nil
}

// open makes the list. The caller holds mu.
func (p *Poller) open() error {
	if p.closed {
		return net.ErrClosed
	}
	if p.epoll != nil {
		return nil
	}
	e, err := epoll.New()
	if err != nil {
		return err
	}
	p.epoll, p.sockets = e, make(map[int]*Polled)
	p.running.Go(p.run)
	return nil
}

// run hands over what comes until the list is closed.
func (p *Poller) run() {
	var buf [MaxDatagram]byte
	p.epoll.Run(func(fd uint64) {
		p.mu.Lock()
		c := p.sockets[int(fd)]
		p.mu.Unlock()
		if c != nil {
			c.receive(buf[:])
		}
	})
}

// receive hands over what is there, but not so much that other sockets wait for long.
func (c *Polled) receive(buf []byte) {
	for range batchSize {
		c.mu.Lock()
		if c.fd < 0 {
			c.mu.Unlock()
			return
		}
		n, again, err := receiveFrom(uintptr(c.fd), buf)
		c.mu.Unlock()
		switch {
		case again:
			return
		case err != nil:
			c.handle(nil, c.failed("read", os.NewSyscallError("read", err)))
			return
		}
		c.handle(buf[:n], nil)
	}
}

// Write sends a datagram, or drops it with ErrDropped if the kernel's buffer is full, or with ErrTooLong.
func (c *Polled) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0, c.failed("write", net.ErrClosed)
	}
	if err := sendOrDrop(uintptr(c.fd), p); errors.Is(err, ErrDropped) {
		return 0, err
	} else if err != nil {
		return 0, c.failed("write", err)
	}
	return len(p), nil
}

func (c *Polled) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Addr: net.UDPAddrFromAddrPort(c.to), Err: err}
}

// Close closes the socket. Nothing is handed over that comes later, but for what is being handed over.
func (c *Polled) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := c.fd
	if fd < 0 {
		return net.ErrClosed
	}
	c.fd = -1
	p := c.poller
	p.mu.Lock()
	delete(p.sockets, fd)
	p.mu.Unlock()
	return unix.Close(fd) // and the list forgets it
}

// Close ends the Poller's goroutine. Its sockets are closed by who has them.
func (p *Poller) Close() {
	p.mu.Lock()
	p.closed = true
	e := p.epoll
	p.mu.Unlock()
	if e != nil {
		_ = e.Close()
	}
	p.running.Wait()
}
