package ws

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
)

// The opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	finBit  = 0x80
	maskBit = 0x80

	maxHeader  = 14  // opcode, length, extended length, mask
	maxControl = 125 // bytes of a control frame's payload
)

// errProtocol ends a connection whose peer does not keep to RFC 6455.
var errProtocol = errors.New("websocket protocol error")

var errMasking = fmt.Errorf("%w: clients mask, and servers do not", errProtocol)

// header is the beginning of a frame that is being read.
type header struct {
	buf [maxHeader]byte
	has int // bytes in buf
}

// take takes bytes of p until the header is whole, and returns what is behind them.
func (h *header) take(p []byte) (rest []byte, whole bool) {
	for len(p) > 0 {
		n := copy(h.buf[h.has:h.size()], p)
		h.has += n
		p = p[n:]
		if h.has >= 2 && h.has == h.size() {
			return p, true
		}
	}
	return p, false
}

// size is how many bytes the header has, as far as those that have come tell: two say it.
func (h *header) size() int {
	if h.has < 2 {
		return 2
	}
	n := 2
	switch h.buf[1] &^ maskBit {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if h.buf[1]&maskBit != 0 {
		n += 4
	}
	return n
}

// frame is what a header says.
type frame struct {
	opcode byte
	final  bool
	masked bool
	key    [4]byte
	length uint64
}

// frame reads a header that is whole, and checks it.
func (h *header) frame() (frame, error) {
	f := frame{
		opcode: h.buf[0] & 0x0f, final: h.buf[0]&finBit != 0,
		masked: h.buf[1]&maskBit != 0, length: uint64(h.buf[1] &^ maskBit),
	}
	switch f.length {
	case 126:
		f.length = uint64(binary.BigEndian.Uint16(h.buf[2:]))
	case 127:
		f.length = binary.BigEndian.Uint64(h.buf[2:])
	}
	if f.masked {
		copy(f.key[:], h.buf[h.has-4:])
	}
	switch {
	case h.buf[0]&0x70 != 0:
		return f, fmt.Errorf("%w: reserved bits are set", errProtocol)
	case f.length>>63 != 0:
		return f, fmt.Errorf("%w: length", errProtocol)
	case f.opcode == opBinary, f.opcode == opContinuation:
		return f, nil
	case f.opcode < opClose, f.opcode > opPong:
		return f, fmt.Errorf("%w: opcode %d", errProtocol, f.opcode)
	case f.length > maxControl, !f.final:
		return f, fmt.Errorf("%w: control frame", errProtocol)
	}
	return f, nil
}

// frameUp writes the header of a final frame right before the payload, which begins at buf[maxHeader], and masks the
// payload in place if the sender is a client. What is returned is the frame.
func frameUp(buf []byte, opcode byte, client bool) []byte {
	payload := buf[maxHeader:]
	at := maxHeader
	var mask byte
	if client {
		mask = maskBit
		at -= 4
		// Seeded by the system and unpredictable, as section 10.3 wants it.
		binary.NativeEndian.PutUint32(buf[at:], rand.Uint32())
		applyMask(payload, [4]byte(buf[at:maxHeader]), 0)
	}
	switch n := len(payload); {
	case n <= maxControl:
		at -= 2
		buf[at+1] = mask | byte(n)
	case n <= 0xffff:
		at -= 4
		buf[at+1] = mask | 126
		binary.BigEndian.PutUint16(buf[at+2:], uint16(n))
	default:
		at -= 10
		buf[at+1] = mask | 127
		binary.BigEndian.PutUint64(buf[at+2:], uint64(n))
	}
	buf[at] = finBit | opcode
	return buf[at:]
}

// applyMask masks or unmasks p in place, beginning at pos in the key, and returns where the key goes on.
func applyMask(p []byte, key [4]byte, pos int) int {
	var pattern [1024]byte
	n := min(len(pattern), (len(p)+3)&^3)
	for i := range min(n, 4) {
		pattern[i] = key[(pos+i)&3]
	}
	for have := 4; have < n; have *= 2 {
		copy(pattern[have:n], pattern[:have])
	}
	for i := 0; i < len(p); i += n {
		subtle.XORBytes(p[i:], p[i:], pattern[:min(n, len(p)-i)])
	}
	return (pos + len(p)) & 3
}
