//go:build !linux

package udp

import (
	"net/netip"
	"sync"
	"syscall"
)

// Batch is one datagram, on this system.
type Batch struct {
	data   [MaxDatagram]byte
	packet Packet
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

// Receive waits for a datagram. The caller releases it. Errors that concern single datagrams are passed over; one that is
// returned is the socket's end.
func (s *Socket) Receive() (*Batch, error) {
	b := batches.Get().(*Batch)
	for {
		n, source, err := s.conn.ReadFromUDPAddrPort(b.data[:])
		if err == nil {
			b.packet = Packet{Data: b.data[:n], Source: netip.AddrPortFrom(source.Addr().Unmap(), source.Port())}
			return b, nil
		}
		if !passing(err) {
			b.Release()
			return nil, err
		}
	}
}

// batching needs no state here.
type batching struct{}

// Len is the number of datagrams.
func (b *Batch) Len() int { return 1 }

// At is the i-th datagram.
func (b *Batch) At(int) Packet { return b.packet }

// Release gives the buffer back.
func (b *Batch) Release() { batches.Put(b) }

// Send sends a datagram. On this system it leaves from the address that the route to its destination has.
func (s *Socket) Send(p []byte, to netip.AddrPort, _ netip.Addr) error {
	_, err := s.conn.WriteToUDPAddrPort(p, to)
	return err
}

func tellDestination(syscall.RawConn, netip.Addr) error { return nil }

func forceBuffers(syscall.RawConn) {}
