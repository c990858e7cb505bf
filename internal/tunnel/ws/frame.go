package ws

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
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
	maxFrame   = 64 << 10
)

// conn is a byte stream over the binary messages of a WebSocket. Reads go straight into the caller's buffer, so an idle
// connection holds none; a write is one frame in one write of what is below. One goroutine may read while others write.
type conn struct {
	net.Conn           // what is below: writes, deadlines, the end
	in       io.Reader // what is below, for reads: bytes that came with the handshake come first
	client   bool      // this side masks what it sends, and the other one does not

	// Of the frame that is being read.
	left uint64 // bytes of its payload still to come
	mask [4]byte
	pos  int // in the mask

	writing sync.Mutex // one frame at a time: Read answers pings
}

// errProtocol ends a connection whose peer does not keep to RFC 6455.
var errProtocol = errors.New("websocket protocol error")

// Read reads the payloads of binary messages. A close frame is io.EOF.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for c.left == 0 {
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
	}
	n, err := c.in.Read(p[:min(uint64(len(p)), c.left)])
	if !c.client {
		c.pos = applyMask(p[:n], p[:n], c.mask, c.pos)
	}
	c.left -= uint64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // only a close frame is an end
	}
	return n, err
}

// nextFrame reads up to the payload of the next data frame, and answers control frames on the way.
func (c *conn) nextFrame() error {
	opcode, final, err := c.readHeader()
	if err != nil {
		return err
	}
	switch opcode {
	case opBinary, opContinuation:
		return nil
	case opClose, opPing, opPong:
		return c.control(opcode, final)
	default:
		return fmt.Errorf("%w: opcode %d", errProtocol, opcode)
	}
}

func (c *conn) readHeader() (opcode byte, final bool, err error) {
	var h [8]byte
	if _, err := io.ReadFull(c.in, h[:2]); err != nil {
		return 0, false, err
	}
	first, second := h[0], h[1]
	switch {
	case first&0x70 != 0:
		return 0, false, fmt.Errorf("%w: reserved bits are set", errProtocol)
	case second&maskBit != 0 == c.client:
		return 0, false, fmt.Errorf("%w: only clients mask", errProtocol)
	}
	c.left = uint64(second &^ maskBit)
	switch c.left {
	case 126:
		_, err = io.ReadFull(c.in, h[:2])
		c.left = uint64(binary.BigEndian.Uint16(h[:2]))
	case 127:
		_, err = io.ReadFull(c.in, h[:8])
		if c.left = binary.BigEndian.Uint64(h[:8]); c.left>>63 != 0 {
			return 0, false, fmt.Errorf("%w: length", errProtocol)
		}
	}
	if err == nil && !c.client {
		_, err = io.ReadFull(c.in, c.mask[:])
		c.pos = 0
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return first &^ finBit, first&finBit != 0, err
}

// control reads a control frame's payload and does what it asks for.
func (c *conn) control(opcode byte, final bool) error {
	if c.left > maxControl || !final {
		return fmt.Errorf("%w: control frame", errProtocol)
	}
	var payload [maxControl]byte
	p := payload[:c.left]
	if _, err := io.ReadFull(c.in, p); err != nil {
		return err
	}
	c.left = 0
	if !c.client {
		applyMask(p, p, c.mask, 0)
	}
	switch opcode {
	case opClose:
		return io.EOF
	case opPing:
		return c.writeFrame(opPong, p)
	default:
		return nil
	}
}

// Write sends p in frames of at most 64 KiB, each in one write.
func (c *conn) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n := min(len(p), maxFrame)
		if err := c.writeFrame(opBinary, p[:n]); err != nil {
			return total, err
		}
		total += n
		p = p[n:]
	}
	return total, nil
}

func (c *conn) writeFrame(opcode byte, p []byte) error {
	buf := frames.Get().(*[maxHeader + maxFrame]byte)
	defer frames.Put(buf)
	b := append(buf[:0], finBit|opcode)
	var mask byte
	if c.client {
		mask = maskBit
	}
	switch n := len(p); {
	case n <= maxControl:
		b = append(b, mask|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if c.client {
		var key [4]byte
		binary.NativeEndian.PutUint32(key[:], rand.Uint32()) // seeded by the system and unpredictable, as section 10.3 wants
		b = append(b, key[:]...)
		at := len(b)
		b = b[:at+len(p)]
		applyMask(b[at:], p, key, 0)
	} else {
		b = append(b, p...)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.Conn.Write(b)
	return err
}

// frames are buffers for a frame each, used while it is written.
var frames = sync.Pool{New: func() any { return new([maxHeader + maxFrame]byte) }}

// applyMask masks or unmasks src into dst, beginning at pos in the key, and returns where the key goes on.
func applyMask(dst, src []byte, key [4]byte, pos int) int {
	var pattern [512]byte
	n := min(len(pattern), (len(src)+3)&^3)
	for i := range n {
		pattern[i] = key[(pos+i)&3]
	}
	for i := 0; i < len(src); i += n {
		subtle.XORBytes(dst[i:], src[i:min(i+n, len(src))], pattern[:n])
	}
	return (pos + len(src)) & 3
}
