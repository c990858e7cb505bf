package proxyproto

import "net/netip"

// AppendTo writes the header in the version, whatever its own, and gives p with it. Off writes nothing.
// What a version has no words for is written as unknown: in version 1 all but TCP. Without TLVs a header has at most
// MaxV1 bytes, unless it is of Unix sockets: some readers take no more.
func (h Header) AppendTo(p []byte, version Version) []byte {
	switch version {
	case V1:
		return h.append1(p)
	case V2:
		return h.append2(p)
	default:
		return p
	}
}

// addresses are the two in one family: IPv4 is mapped into IPv6 beside an address of that. A destination that is not
// known is the unspecified address.
func (h *Header) addresses() (source, destination netip.AddrPort, six bool) {
	s, d := h.Source.Addr().Unmap().WithZone(""), h.Destination.Addr().Unmap().WithZone("")
	if !d.IsValid() {
		d = netip.IPv4Unspecified()
		if s.Is6() {
			d = netip.IPv6Unspecified()
		}
	}
	if six = s.Is6() || d.Is6(); six {
		s, d = netip.AddrFrom16(s.As16()), netip.AddrFrom16(d.As16())
	}
	return netip.AddrPortFrom(s, h.Source.Port()), netip.AddrPortFrom(d, h.Destination.Port()), six
}

// Emission is which header a service is to get. The zero Emission is none.
type Emission struct {
	Version Version
	// Of version 2 alone: the host that the visitor asked for, the connection's id, a checksum.
	Authority, UniqueID, CRC32C bool
	// FirstDatagram puts it in front of the first datagram of a flow alone, where the specification wants it in each.
	FirstDatagram bool
}

// Header is the header that tells a service of a connection. id and host may be "". before is the header that came with
// the connection, or nil: its host and id are those of whoever was nearer to the visitor, so they are passed on.
func (e Emission) Header(source, destination netip.AddrPort, id, host string, before *Header) Header {
	h := Header{Version: e.Version, Transport: TCP, Source: source, Destination: destination}
	if e.Version != V2 {
		return h
	}
	if e.Authority {
		h.tell(TypeAuthority, host, before)
	}
	if e.UniqueID {
		h.tell(TypeUniqueID, id, before)
	}
	if e.CRC32C {
		h.TLVs = append(h.TLVs, TLV{Type: TypeCRC32C})
	}
	return h
}

func (h *Header) tell(kind byte, own string, before *Header) {
	value := []byte(own)
	if before != nil {
		if v, ok := before.TLV(kind); ok {
			value = v
		}
	}
	if len(value) > 0 && (kind != TypeUniqueID || len(value) <= MaxUniqueID) {
		h.TLVs = append(h.TLVs, TLV{kind, value})
	}
}
