// Package udp is datagrams: a socket that answers from the address it was asked at, connected sockets and framed streams of
// which one read or write is one datagram, and a bounded table of flows.
//
// Datagrams keep their boundaries, empty ones too, and none is invented. Nothing here waits to send: what cannot go at once
// is dropped, and ErrDropped says so. Where flows go is not decided here.
package udp

import (
	"errors"
	"fmt"
	"net/netip"
)

// MaxDatagram is the most that a datagram carries, in bytes.
const MaxDatagram = 65535

// ErrDropped is the error of a datagram that was not sent because it would have had to wait, or was too long for the way.
// The connection goes on.
var ErrDropped = errors.New("datagram dropped")

// ErrTooLong is the ErrDropped of a datagram that is too long for the way.
var ErrTooLong = fmt.Errorf("%w: longer than the way carries", ErrDropped)

// Packet is a datagram that came. Data is valid until its Batch is released.
type Packet struct {
	Data        []byte
	Source      netip.AddrPort // IPv4 in its plain form
	Destination netip.Addr     // the address of this machine that it came to; the zero Addr if the socket has just one
}
