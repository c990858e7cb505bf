package entrypoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"culvert/internal/udp"
)

// UDPConfig is what a UDP entrypoint needs.
type UDPConfig struct {
	Addr    string         // host:port; an empty host is every address of the machine, port 0 any free port
	Allow   []netip.Prefix // the sources that are heard; empty: all
	Inherit Inheritance
	// OnRefused, if set, is called for each datagram that is not heard, with a Refused reason.
	OnRefused func(reason string)
}

// UDP is an entrypoint for datagrams.
type UDP struct {
	cfg    UDPConfig
	socket *udp.Socket
	closed chan struct{}
	close  sync.Once
}

// ListenUDP opens the entrypoint; datagrams wait in the kernel until Run.
func ListenUDP(cfg UDPConfig) (*UDP, error) {
	conn, err := cfg.Inherit.From().ListenPacket(net.ListenConfig{}, "udp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", cfg.Addr, err)
	}
	socket, err := udp.New(conn)
	if err != nil {
		return nil, err
	}
	return &UDP{cfg: cfg, socket: socket, closed: make(chan struct{})}, nil
}

// Addr is the address that is listened on.
func (u *UDP) Addr() net.Addr { return net.UDPAddrFromAddrPort(u.socket.LocalAddr()) }

// Run hands over one datagram after the other. Its data may not be kept. When ctx ends or Close is called, it returns nil.
func (u *UDP) Run(ctx context.Context, handle func(udp.Packet)) error {
	defer context.AfterFunc(ctx, func() { _ = u.Close() })()
	if turn := u.cfg.Inherit.Turn; turn != nil {
		select {
		case <-turn:
		case <-ctx.Done():
		case <-u.closed:
		}
	}
	for {
		b, err := u.socket.Receive()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive on %s: %w", u.socket.LocalAddr(), err)
		}
		for i := range b.Len() {
			if p := b.At(i); u.heard(p.Source) {
				handle(p)
			}
		}
		b.Release()
	}
}

// heard says whether the source's datagrams are taken.
func (u *UDP) heard(source netip.AddrPort) bool {
	// A datagram from port 0 cannot be answered.
	if source.Port() != 0 && allowed(u.cfg.Allow, source.Addr().WithZone("")) {
		return true
	}
	if u.cfg.OnRefused != nil {
		u.cfg.OnRefused(RefusedSource)
	}
	return false
}

// Send sends a datagram; from is the Destination of the one that it answers.
func (u *UDP) Send(p []byte, to netip.AddrPort, from netip.Addr) error {
	return u.socket.Send(p, to, from)
}

// Close closes the socket.
func (u *UDP) Close() error {
	u.close.Do(func() { close(u.closed) })
	return u.socket.Close()
}
