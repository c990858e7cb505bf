package udp

import "encoding/binary"

// HeaderSize is what stands before each datagram on a stream.
const HeaderSize = 2

// Header is what stands on a stream before a datagram of n bytes, at most MaxDatagram.
func Header(n int) [HeaderSize]byte {
	var h [HeaderSize]byte
	binary.BigEndian.PutUint16(h[:], uint16(n))
	return h
}

// Cut cuts the first datagram off what came on a stream. n is how much of p is done with: all of the frame if it is whole,
// else nothing.
func Cut(p []byte) (datagram []byte, n int, whole bool) {
	if len(p) < HeaderSize {
		return nil, 0, false
	}
	n = HeaderSize + int(binary.BigEndian.Uint16(p))
	if len(p) < n {
		return nil, 0, false
	}
	return p[HeaderSize:n], n, true
}
