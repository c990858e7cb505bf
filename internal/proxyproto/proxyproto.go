// Package proxyproto reads and writes the PROXY protocol's header, versions 1 and 2: the addresses of a connection that a
// proxy passes on, told before its first byte, or in front of the payload of each datagram.
//
// It is stricter than most where a wrong reading gives a visitor another one's address (leading zeros, a length that is
// overrun, a checksum that does not hold), and more patient than most where the specification asks for it: a header may
// come in any number of pieces. It reads from memory only and never waits; who may send a header, and for how long it is
// waited for, is decided by entrypoint.
package proxyproto

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
)

// Version is a version of the header; Off is none.
type Version uint8

// The versions.
const (
	Off Version = iota
	V1          // a line of text
	V2          // binary, with optional fields
)

// ParseVersion reads "", "v1" or "v2".
func ParseVersion(s string) (Version, error) {
	switch s {
	case "":
		return Off, nil
	case "v1":
		return V1, nil
	case "v2":
		return V2, nil
	}
	return Off, fmt.Errorf("%.40q is not a version of the PROXY protocol; write v1 or v2, or \"\" for none", s)
}

// String is the form that ParseVersion reads.
func (v Version) String() string {
	switch v {
	case V1:
		return "v1"
	case V2:
		return "v2"
	default:
		return ""
	}
}

// Transport is what carried the connection that the header is about.
type Transport uint8

// The transports.
const (
	Unspec Transport = iota // unknown to the sender: the addresses of the connection itself hold
	TCP
	UDP
	Unix
)

// Header is what a proxy tells of a connection. It shares no memory with what it was read from.
type Header struct {
	Version Version
	// Local means that the sender speaks for itself, as health checks do. No address is told then.
	Local     bool
	Transport Transport
	// Source is who connected and Destination what it connected to, IPv4 in its plain form. Both are zero unless Transport
	// is TCP or UDP.
	Source, Destination netip.AddrPort
	// SourcePath and DestinationPath are those of Unix sockets.
	SourcePath, DestinationPath string
	// TLVs are the fields behind the addresses, in order. A checksum and padding are not among them once read.
	TLVs []TLV
}

// Real says whether the header gives addresses. If not, those of the connection that it came on hold.
func (h *Header) Real() bool { return h.Source.IsValid() }

// TLV is the value of the first field of the type.
func (h *Header) TLV(kind byte) ([]byte, bool) {
	for _, t := range h.TLVs {
		if t.Type == kind {
			return t.Value, true
		}
	}
	return nil, false
}

// TLV is a field of version 2: a type, a length and a value.
type TLV struct {
	Type  byte
	Value []byte
}

// The types of fields that mean something here. Others are passed on as they are.
const (
	TypeAuthority = 0x02 // the host that the visitor asked for: the name in its ClientHello
	TypeCRC32C    = 0x03 // checksum of the header. To write one, add a TLV of this type; its value is made
	TypeNoop      = 0x04 // padding
	TypeUniqueID  = 0x05 // up to MaxUniqueID bytes that name the connection
)

// Limits of a header, in bytes.
const (
	MaxV1       = 107        // of version 1, with its line end
	MaxV2       = 16 + 65535 // of version 2: what the format can hold
	MaxParsed   = 4 << 10    // of version 2, of which Parse takes no more: room for what load balancers send, many times over
	MaxUniqueID = 128        // of the field
)

// Errors of Parse. Every other error is that of a header which is malformed.
var (
	// ErrNone means that the bytes begin with something else.
	ErrNone = errors.New("no PROXY header")
	// ErrTooLong means that the header is longer than the most that is taken.
	ErrTooLong = errors.New("PROXY header is too long")
)

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
	fixed2     = len(signature2) + 4 // and command, family and length
)

// Signature says whether p begins with the signature of a header of either version, or may do so once more of it is
// there.
func Signature(p []byte) (is, maybe bool) {
	for _, s := range []string{signature1, signature2} {
		if len(p) >= len(s) {
			is = is || string(p[:len(s)]) == s
		} else {
			maybe = maybe || s[:len(p)] == string(p)
		}
	}
	return is, maybe && !is
}

// Parse reads the header that p begins with, of at most MaxParsed bytes. n is its length. While what is there is the
// beginning of a header, more is true and nothing else is set; what can be seen to be wrong already is an error.
func Parse(p []byte) (h Header, n int, more bool, err error) { return parse(p, MaxParsed) }

func parse(p []byte, most int) (h Header, n int, more bool, err error) {
	switch {
	case bytes.HasPrefix(p, []byte(signature1)):
		return parse1(p)
	case bytes.HasPrefix(p, []byte(signature2)):
		return parse2(p, most)
	}
	if _, maybe := Signature(p); maybe {
		return Header{}, 0, true, nil
	}
	return Header{}, 0, false, ErrNone
}
