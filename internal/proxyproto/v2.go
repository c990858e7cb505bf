package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

// The nibbles of version 2.
const (
	version2 = 0x20
	local    = 0x0
	proxied  = 0x1

	familyUnspec = 0x00
	familyInet   = 0x10
	familyInet6  = 0x20
	familyUnix   = 0x30

	stream   = 0x1
	datagram = 0x2
)

const unixPath = 108 // bytes of the path of a Unix socket

// parse2 reads a header of version 2 and at most so many bytes. p begins with the signature. Each byte is checked as soon as it is there, so that
// what will never become a header is not waited for.
func parse2(p []byte, most int) (Header, int, bool, error) {
	fixed := p[len(signature2):min(len(p), fixed2)]
	if len(fixed) > 0 && (fixed[0]&0xf0 != version2 || fixed[0]&0x0f > proxied) {
		return Header{}, 0, false, fmt.Errorf("version 2: unknown version and command %#02x", fixed[0])
	}
	if len(fixed) > 1 && fixed[0]&0x0f == proxied && (fixed[1]&0xf0 > familyUnix || fixed[1]&0x0f > datagram) {
		return Header{}, 0, false, fmt.Errorf("version 2: unknown family and transport %#02x", fixed[1])
	}
	if len(fixed) < 4 {
		return Header{}, 0, true, nil
	}
	n := fixed2 + int(binary.BigEndian.Uint16(fixed[2:]))
	switch {
	case n > most:
		return Header{}, 0, false, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, n, most)
	case len(p) < n:
		return Header{}, 0, true, nil
	}
	h, err := parseBody2(p[:n])
	if err != nil {
		return Header{}, 0, false, fmt.Errorf("version 2: %w", err)
	}
	return h, n, false, nil
}

// parseBody2 reads a header that is whole.
func parseBody2(p []byte) (Header, error) {
	h := Header{Version: V2, Local: p[12]&0x0f == local}
	family, carried := p[13]&0xf0, p[13]&0x0f
	// What the family of a LOCAL header says must be ignored, and of an unknown one nobody knows where the fields begin.
	// The load balancer of AWS sends LOCAL with the family of IPv4, no addresses, and fields.
	if h.Local || family == familyUnspec || carried == 0 {
		return h, nil
	}
	rest := p[fixed2:]
	var ok bool
	switch family {
	case familyInet:
		rest, ok = h.take(rest, 4)
	case familyInet6:
		rest, ok = h.take(rest, 16)
	case familyUnix:
		if ok = len(rest) >= 2*unixPath; ok {
			h.SourcePath, h.DestinationPath = pathOf(rest[:unixPath]), pathOf(rest[unixPath:2*unixPath])
			rest = rest[2*unixPath:]
		}
	}
	if !ok {
		return Header{}, fmt.Errorf("%d bytes are too few for the addresses of family %#02x", len(p)-fixed2, p[13])
	}
	switch {
	case family == familyUnix:
		h.Transport = Unix
	case carried == stream:
		h.Transport = TCP
	default:
		h.Transport = UDP
	}
	return h, h.fields(p, rest)
}

// take reads two addresses of size bytes and two ports.
func (h *Header) take(p []byte, size int) (rest []byte, ok bool) {
	if len(p) < 2*size+4 {
		return nil, false
	}
	source, _ := netip.AddrFromSlice(p[:size])
	destination, _ := netip.AddrFromSlice(p[size : 2*size])
	p = p[2*size:]
	h.Source = netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(p))
	h.Destination = netip.AddrPortFrom(destination.Unmap(), binary.BigEndian.Uint16(p[2:]))
	return p[4:], true
}

// pathOf is a path that is filled up with zero bytes. One of the abstract namespace begins with such a byte, and keeps it.
func pathOf(p []byte) string {
	if len(p) > 0 && p[0] == 0 {
		return string(bytes.TrimRight(p, "\x00"))
	}
	path, _, _ := bytes.Cut(p, []byte{0})
	return string(path)
}

var (
	errChecksum = errors.New("the checksum does not hold")
	errField    = errors.New("a field is longer than the header")
)

// fields reads what stands behind the addresses of the header whole.
func (h *Header) fields(whole, p []byte) error {
	checked := false
	for len(p) > 0 {
		if len(p) < 3 {
			return errField
		}
		kind, size := p[0], int(binary.BigEndian.Uint16(p[1:]))
		if size > len(p)-3 {
			return errField
		}
		value := p[3 : 3+size]
		p = p[3+size:]
		switch {
		case kind == TypeNoop:
		case kind == TypeCRC32C:
			if checked || size != 4 || binary.BigEndian.Uint32(value) != checksum(whole, len(whole)-len(p)-4) {
				return errChecksum
			}
			checked = true
		case kind == TypeUniqueID && size > MaxUniqueID:
			return fmt.Errorf("a unique id of %d bytes, at most %d", size, MaxUniqueID)
		default:
			h.TLVs = append(h.TLVs, TLV{kind, bytes.Clone(value)})
		}
	}
	return nil
}

// checksum is the CRC32C of a header whose four bytes at the given place count as zero.
func checksum(header []byte, at int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // made once, by crc32
	c := crc32.Update(0, table, header[:at])
	c = crc32.Update(c, table, make([]byte, 4))
	return crc32.Update(c, table, header[at+4:])
}

// append2 writes version 2. Of what cannot be told it writes LOCAL, which every reader takes for "use the addresses of
// the connection"; PROXY with an unknown family, HAProxy refuses.
func (h *Header) append2(p []byte) []byte {
	begin := len(p)
	p = append(p, signature2...)
	known := !h.Local && (h.Transport == Unix || h.Source.IsValid() && h.Transport != Unspec)
	if !known {
		return append(p, version2|local, 0, 0, 0)
	}
	p = append(p, version2|proxied, h.family2(), 0, 0)
	if h.Transport == Unix {
		p = appendPath(appendPath(p, h.SourcePath), h.DestinationPath)
	} else {
		source, destination, _ := h.addresses()
		p = append(append(p, source.Addr().AsSlice()...), destination.Addr().AsSlice()...)
		p = binary.BigEndian.AppendUint16(p, source.Port())
		p = binary.BigEndian.AppendUint16(p, destination.Port())
	}
	sum := -1 // where the checksum goes
	for _, t := range h.TLVs {
		value := t.Value
		if t.Type == TypeCRC32C {
			value, sum = make([]byte, 4), len(p)-begin+3
		}
		if len(p)-begin+3+len(value) > MaxV2 {
			break // the length could not be written
		}
		p = append(p, t.Type)
		p = binary.BigEndian.AppendUint16(p, uint16(len(value)))
		p = append(p, value...)
	}
	binary.BigEndian.PutUint16(p[begin+14:], uint16(len(p)-begin-fixed2))
	if sum >= 0 && sum+4 <= len(p)-begin {
		binary.BigEndian.PutUint32(p[begin+sum:], checksum(p[begin:], sum))
	}
	return p
}

// family2 is the byte of family and transport.
func (h *Header) family2() byte {
	if h.Transport == Unix {
		return familyUnix | stream
	}
	family, carried := byte(familyInet), byte(stream)
	if _, _, six := h.addresses(); six {
		family = familyInet6
	}
	if h.Transport == UDP {
		carried = datagram
	}
	return family | carried
}

func appendPath(p []byte, path string) []byte {
	var field [unixPath]byte
	copy(field[:], path)
	return append(p, field[:]...)
}
