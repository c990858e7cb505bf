package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many datagrams one system call takes. More save little, and each has room for the longest datagram.
const batchSize = 16

// controlSize holds an IPV6_PKTINFO, the longest message that is asked for.
const controlSize = 64

// message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	size   uint32
}

// Batch is the datagrams that one call took from a socket.
type Batch struct {
	messages [batchSize]message
	vectors  [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrInet6
	controls [batchSize][controlSize]byte
	data     [batchSize][]byte // of MaxDatagram; memory that no datagram has touched is not there
	n        int
	err      error
}

var batches = sync.Pool{New: func() any { return newBatch() }}

func newBatch() *Batch {
	b := new(Batch)
	all := make([]byte, batchSize*(MaxDatagram+1))
	for i := range b.messages {
		b.data[i] = all[i*(MaxDatagram+1):][:MaxDatagram:MaxDatagram]
		b.vectors[i].Base = &b.data[i][0]
		b.vectors[i].SetLen(MaxDatagram)
		b.messages[i].header.Iov = &b.vectors[i]
		b.messages[i].header.SetIovlen(1)
		b.messages[i].header.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		b.messages[i].header.Control = &b.controls[i][0]
	}
	return b
}

// Receive waits for datagrams, without holding a buffer meanwhile, and gives those that are there. The caller releases them.
// Errors that concern single datagrams are passed over; one that is returned is the socket's end. It is for one goroutine.
func (s *Socket) Receive() (*Batch, error) {
	if s.try == nil {
		s.try = s.attempt
	}
	for {
		if err := s.raw.Read(s.try); err != nil {
			return nil, &net.OpError{Op: "read", Net: "udp", Addr: s.conn.LocalAddr(), Err: err}
		}
		b := s.got
		s.got = nil
		if b.err == nil {
			return b, nil
		}
		err := b.err
		b.Release()
		if !passing(err) {
			return nil, &net.OpError{Op: "read", Net: "udp", Addr: s.conn.LocalAddr(), Err: os.NewSyscallError("recvmmsg", err)}
		}
	}
}

// batching is the state of Receive.
type batching struct {
	got *Batch
	try func(uintptr) bool // attempt, bound once
}

// attempt takes what is there, with a buffer that it keeps only then. It says whether the wait is over.
func (s *Socket) attempt(fd uintptr) bool {
	b := batches.Get().(*Batch)
	if !b.attempt(fd) {
		batches.Put(b)
		return false
	}
	s.got = b
	return true
}

// attempt takes what is there. It says whether the wait is over.
func (b *Batch) attempt(fd uintptr) bool {
	for i := range b.messages {
		b.messages[i].header.Namelen = unix.SizeofSockaddrInet6
		b.messages[i].header.SetControllen(controlSize)
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.messages[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			b.n, b.err = int(n), nil
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			b.n, b.err = 0, errno
			return true
		}
	}
}

// Len is the number of datagrams.
func (b *Batch) Len() int { return b.n }

// At is the i-th datagram.
func (b *Batch) At(i int) Packet {
	m := &b.messages[i]
	return Packet{
		Data:        b.data[i][:m.size],
		Source:      addrPortOf(&b.names[i]),
		Destination: destinationOf(b.controls[i][:min(int(m.header.Controllen), controlSize)]),
	}
}

// Release gives the buffers back.
func (b *Batch) Release() { batches.Put(b) }

// addrPortOf reads the kernel's address.
func addrPortOf(sa *unix.RawSockaddrInet6) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), hostOrder(v4.Port))
	case unix.AF_INET6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && addr.Is6() {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(addr, hostOrder(sa.Port))
	}
	return netip.AddrPort{}
}

func hostOrder(port uint16) uint16 {
	b := *(*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// destinationOf finds the address that a datagram came to in what the kernel tells beside it.
func destinationOf(control []byte) netip.Addr {
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		if int(h.Len) < unix.SizeofCmsghdr || int(h.Len) > len(control) {
			break
		}
		data := control[unix.CmsgLen(0):h.Len]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			return netip.AddrFrom4(info.Addr)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			addr := netip.AddrFrom16(info.Addr).Unmap()
			if addr.IsLinkLocalUnicast() && addr.Is6() {
				addr = addr.WithZone(strconv.FormatUint(uint64(info.Ifindex), 10))
			}
			return addr
		}
		next := unix.CmsgSpace(len(data))
		if next >= len(control) {
			break
		}
		control = control[next:]
	}
	return netip.Addr{}
}

// control is a message for the kernel: where an answer is to leave from.
type control struct {
	buf [controlSize]byte
}

var controls = sync.Pool{New: func() any { return new(control) }}

// Send sends a datagram from the address that the packet it answers came to. It waits while the kernel's buffer is full.
func (s *Socket) Send(p []byte, to netip.AddrPort, from netip.Addr) error {
	if !from.IsValid() || !s.wildcard {
		_, _, err := s.conn.WriteMsgUDPAddrPort(p, nil, to)
		return err
	}
	c := controls.Get().(*control)
	_, _, err := s.conn.WriteMsgUDPAddrPort(p, c.from(from, s.local.Addr().Is4()), to)
	controls.Put(c)
	return err
}

// from is the message for an address, as the family of the socket has it.
func (c *control) from(addr netip.Addr, is4 bool) []byte {
	clear(c.buf[:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c.buf[0]))
	if is4 {
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&c.buf[unix.CmsgLen(0)]))
		info.Spec_dst = addr.Unmap().As4()
		return c.buf[:unix.CmsgSpace(unix.SizeofInet4Pktinfo)]
	}
	h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
	info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&c.buf[unix.CmsgLen(0)]))
	info.Addr = addr.As16()
	if zone := addr.Zone(); zone != "" { // as destinationOf writes it
		index, _ := strconv.ParseUint(zone, 10, 32)
		info.Ifindex = uint32(index)
	}
	return c.buf[:unix.CmsgSpace(unix.SizeofInet6Pktinfo)]
}

// tellDestination has the kernel say which address each datagram came to.
func tellDestination(raw syscall.RawConn, local netip.Addr) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		if local.Is4() {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			return
		}
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	return errors.Join(err, failed)
}

// forceBuffers goes beyond the system's limit, which the administrator may; others keep what they got.
func forceBuffers(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bufferSize)
	})
}
