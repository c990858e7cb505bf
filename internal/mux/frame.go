package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// frameType is the first byte of a frame. docs/protocol.md, section 3, has the bodies.
type frameType byte

const (
	typeAttach   frameType = 0x01 // dialler's first frame: which session the link belongs to
	typeAttached frameType = 0x02 // acceptor's first frame
	typePing     frameType = 0x03
	typePong     frameType = 0x04
	typeClose    frameType = 0x05 // the session ends
	typeResume   frameType = 0x06 // what of the streams arrived, after a link was lost
	typeOpen     frameType = 0x10
	typeReceived frameType = 0x11
	typeResult   frameType = 0x12
	typeData     frameType = 0x13
	typeWindow   frameType = 0x14 // acknowledgement and credit in one
	typeFin      frameType = 0x15
	typeReset    frameType = 0x16
	typeMore     frameType = 0x81 // the acceptor would like another link

	// skippable is set in types that a receiver which does not know them may skip.
	skippable frameType = 0x80
)

// unknown says that this version has no such type.
func (t frameType) unknown() bool {
	return t > typeResume && t < typeOpen || t > typeReset && t != typeMore || t == 0
}

const (
	headerSize     = 12
	dataHeaderSize = headerSize + 8
	maxData        = 64 << 10         // payload of a DATA frame
	maxBody        = 16 << 10         // body of any other frame
	maxMetaLimit   = maxBody - 8      // an OPEN is its limit and the metadata
	maxSkipped     = 64<<10 + 64      // body of a frame that this side does not know
	maxDetail      = 1024             // of a RESULT
	maxText        = 256              // of a RESET or CLOSE
	earlyCredit    = 32 << 10         // what an opener may send before RECEIVED
	maxWindow      = 16 << 20         // of one stream
	maxOffset      = uint64(1) << 62  // no direction of a stream gets so long
	frameSlack     = 2*maxDetail + 64 // more than any frame but OPEN, DATA and RESUME needs
)

// header is the fixed part of a frame.
type header struct {
	kind   frameType
	length int
	stream uint64
}

func appendHeader(b []byte, kind frameType, length int, stream uint64) []byte {
	b = append(b, byte(kind), byte(length>>16), byte(length>>8), byte(length))
	return binary.BigEndian.AppendUint64(b, stream)
}

var errFrame = errors.New("malformed frame")

// parseHeader reads the first headerSize bytes of b and checks the length against the type.
func parseHeader(b []byte) (header, error) {
	h := header{
		kind:   frameType(b[0]),
		length: int(b[1])<<16 | int(b[2])<<8 | int(b[3]),
		stream: binary.BigEndian.Uint64(b[4:headerSize]),
	}
	most := maxBody
	if h.kind.unknown() && h.kind&skippable != 0 {
		most = maxSkipped
	}
	if h.kind == typeData {
		most = maxData + 8
		if h.length <= 8 {
			return h, fmt.Errorf("%w: DATA without data", errFrame)
		}
	}
	if h.length > most {
		return h, fmt.Errorf("%w: type %#x with %d bytes, at most %d", errFrame, byte(h.kind), h.length, most)
	}
	if ofStream := h.kind >= typeOpen && h.kind <= typeReset; ofStream != (h.stream != 0) && h.kind&skippable == 0 {
		return h, fmt.Errorf("%w: type %#x on stream %d", errFrame, byte(h.kind), h.stream)
	}
	return h, nil
}

func appendPing(b []byte, kind frameType, opaque uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, kind, 8, 0), opaque)
}

func appendOpen(b []byte, stream, limit uint64, meta []byte) []byte {
	b = binary.BigEndian.AppendUint64(appendHeader(b, typeOpen, 8+len(meta), stream), limit)
	return append(b, meta...)
}

func appendReceived(b []byte, stream, limit uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, typeReceived, 8, stream), limit)
}

// appendCoded makes a frame of a code and a text: RESULT, RESET, CLOSE.
func appendCoded(b []byte, kind frameType, stream uint64, code uint8, text string) []byte {
	b = append(appendHeader(b, kind, 1+len(text), stream), code)
	return append(b, text...)
}

func appendDataHeader(b []byte, stream, offset uint64, n int) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, typeData, 8+n, stream), offset)
}

func appendWindow(b []byte, stream, acked, limit uint64) []byte {
	b = binary.BigEndian.AppendUint64(appendHeader(b, typeWindow, 16, stream), acked)
	return binary.BigEndian.AppendUint64(b, limit)
}

func appendFin(b []byte, stream, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, typeFin, 8, stream), offset)
}

// numbers reads a body of exactly one or two numbers; those that are not there are zero.
func numbers(body []byte, n int) (a, b uint64, err error) {
	if len(body) != 8*n {
		return 0, 0, fmt.Errorf("%w: body of %d bytes", errFrame, len(body))
	}
	a = binary.BigEndian.Uint64(body)
	if n == 2 {
		b = binary.BigEndian.Uint64(body[8:])
	}
	if a > maxOffset || b > maxOffset {
		return 0, 0, fmt.Errorf("%w: offset", errFrame)
	}
	return a, b, nil
}

// coded reads a body of a code and a text.
func coded(body []byte, most int) (code uint8, text string, err error) {
	if len(body) == 0 || len(body) > 1+most {
		return 0, "", fmt.Errorf("%w: body of %d bytes", errFrame, len(body))
	}
	return body[0], string(body[1:]), nil
}

// attach is the body of an ATTACH frame.
type attach struct {
	join       bool
	link       uint32
	session    SessionID
	secret     [32]byte
	maxStreams uint32
}

// protocolVersion is the version of the mux's protocol.
const protocolVersion = 1

const attachSize = 1 + 1 + 4 + 16 + 32 + 4

func (a attach) append(b []byte) []byte {
	b = append(appendHeader(b, typeAttach, attachSize, 0), protocolVersion, 0)
	if a.join {
		b[len(b)-1] = 1
	}
	b = binary.BigEndian.AppendUint32(b, a.link)
	b = append(append(b, a.session[:]...), a.secret[:]...)
	return binary.BigEndian.AppendUint32(b, a.maxStreams)
}

func parseAttach(body []byte) (a attach, err error) {
	switch {
	case len(body) >= 1 && body[0] != protocolVersion:
		return a, fmt.Errorf("%w: version %d, this side speaks %d", errVersion, body[0], protocolVersion)
	case len(body) != attachSize || body[1] > 1:
		return a, fmt.Errorf("%w: ATTACH", errFrame)
	}
	a.join = body[1] == 1
	a.link = binary.BigEndian.Uint32(body[2:])
	copy(a.session[:], body[6:])
	copy(a.secret[:], body[22:])
	a.maxStreams = binary.BigEndian.Uint32(body[54:])
	if a.link == 0 {
		return a, fmt.Errorf("%w: ATTACH of link 0", errFrame)
	}
	return a, nil
}

// Status is an acceptor's answer to a link.
type Status uint8

// The answers to a link.
const (
	Attached       Status = 0
	UnknownSession Status = 1 // the dialler starts a new session at once
	WrongSecret    Status = 2 // or a link number that is not new
	WrongVersion   Status = 3
	Refused        Status = 4
)

// attached is the body of an ATTACHED frame.
type attached struct {
	status     Status
	maxStreams uint32
	text       string
}

func (a attached) append(b []byte) []byte {
	text := a.text[:min(len(a.text), maxText)]
	b = append(appendHeader(b, typeAttached, 5+len(text), 0), byte(a.status))
	b = binary.BigEndian.AppendUint32(b, a.maxStreams)
	return append(b, text...)
}

func parseAttached(body []byte) (a attached, err error) {
	if len(body) < 5 || len(body) > 5+maxText {
		return a, fmt.Errorf("%w: ATTACHED", errFrame)
	}
	return attached{Status(body[0]), binary.BigEndian.Uint32(body[1:]), string(body[5:])}, nil
}

var errVersion = errors.New("mux version")
