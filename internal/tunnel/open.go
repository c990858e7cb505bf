package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"culvert/internal/proxyproto"
)

// Open is what the opener of a stream tells about the connection that the stream is for.
type Open struct {
	Tunnel      Name
	ID          string         // the connection's id, for the logs of both ends
	Source      netip.AddrPort // the visitor
	Destination netip.AddrPort // where the visitor connected to
	Host        string         // host name that the visitor asked for, if known
	// ProxyProtocol is the PROXY header that the server wishes the service to get.
	ProxyProtocol proxyproto.Emission
	// UniqueID is what a balancer in front calls the connection, if that is to be in the header in place of ID.
	UniqueID  string
	Datagrams bool // the stream carries datagrams, each behind its length
}

// A stream's metadata is a kind and, for streams that carry a connection, fields of tag, length and value.
// A reader skips tags that it does not know, but refuses the open if such a tag has the critical bit.
const (
	metaControl = 0
	metaOpen    = 1

	tagTunnel      = 1
	tagID          = 2
	tagSource      = 3
	tagDestination = 4
	tagHost        = 5
	tagProxy       = 6
	tagUniqueID    = 7
	tagCritical    = 0x80

	tagDatagrams = tagCritical | 8 // who does not know it would take lengths for bytes
)

func (o Open) encode() []byte {
	p := append(make([]byte, 0, 128), metaOpen)
	p = appendField(p, tagTunnel, []byte(o.Tunnel.String()))
	p = appendField(p, tagID, []byte(o.ID))
	if o.Source.IsValid() {
		p = appendField(p, tagSource, o.Source.AppendTo(nil))
	}
	if o.Destination.IsValid() {
		p = appendField(p, tagDestination, o.Destination.AppendTo(nil))
	}
	if o.Host != "" {
		p = appendField(p, tagHost, []byte(o.Host))
	}
	if o.ProxyProtocol.Version != proxyproto.Off {
		p = appendField(p, tagProxy, encodeEmission(o.ProxyProtocol))
	}
	if o.UniqueID != "" {
		p = appendField(p, tagUniqueID, []byte(o.UniqueID))
	}
	if o.Datagrams {
		p = appendField(p, tagDatagrams, nil)
	}
	return p
}

func appendField(p []byte, tag byte, value []byte) []byte {
	p = append(p, tag)
	p = binary.AppendUvarint(p, uint64(len(value)))
	return append(p, value...)
}

var errMalformed = errors.New("malformed open")

func decodeOpen(p []byte) (Open, error) {
	if len(p) == 0 || p[0] != metaOpen {
		return Open{}, fmt.Errorf("%w: not of the kind of a connection", errMalformed)
	}
	p = p[1:]
	var o Open
	for len(p) > 0 {
		tag := p[0]
		n, size := binary.Uvarint(p[1:])
		if size <= 0 || n > uint64(len(p)-1-size) {
			return Open{}, fmt.Errorf("%w: field %d is cut", errMalformed, tag)
		}
		value := p[1+size : 1+size+int(n)]
		p = p[1+size+int(n):]
		if err := o.set(tag, string(value)); err != nil {
			return Open{}, fmt.Errorf("%w: field %d: %w", errMalformed, tag, err)
		}
	}
	if o.Tunnel == (Name{}) {
		return Open{}, fmt.Errorf("%w: no tunnel", errMalformed)
	}
	return o, nil
}

func (o *Open) set(tag byte, value string) (err error) {
	switch tag {
	case tagTunnel:
		o.Tunnel, err = ParseName(value)
	case tagID:
		o.ID = value
	case tagSource:
		o.Source, err = netip.ParseAddrPort(value)
	case tagDestination:
		o.Destination, err = netip.ParseAddrPort(value)
	case tagHost:
		o.Host = value
	case tagProxy:
		o.ProxyProtocol, err = decodeEmission(value)
	case tagUniqueID:
		o.UniqueID = value
	case tagDatagrams:
		o.Datagrams = true
	default:
		if tag&tagCritical != 0 {
			return errors.New("unknown and critical")
		}
	}
	return err
}

// The wish for a PROXY header is its version and a byte of bits for what it is to have.
const (
	proxyAuthority = 1 << iota
	proxyUniqueID
	proxyCRC32C
	proxyFirst // datagrams: before the first of a flow alone
)

func encodeEmission(e proxyproto.Emission) []byte {
	var bits byte
	if e.Authority {
		bits |= proxyAuthority
	}
	if e.UniqueID {
		bits |= proxyUniqueID
	}
	if e.CRC32C {
		bits |= proxyCRC32C
	}
	if e.FirstDatagram {
		bits |= proxyFirst
	}
	return []byte{byte(e.Version), bits}
}

// decodeEmission skips bits that it does not know, and what may follow them.
func decodeEmission(p string) (proxyproto.Emission, error) {
	if len(p) < 2 {
		return proxyproto.Emission{}, errors.New("is cut")
	}
	e := proxyproto.Emission{
		Version:   proxyproto.Version(p[0]),
		Authority: p[1]&proxyAuthority != 0, UniqueID: p[1]&proxyUniqueID != 0, CRC32C: p[1]&proxyCRC32C != 0, FirstDatagram: p[1]&proxyFirst != 0,
	}
	if e.Version != proxyproto.V1 && e.Version != proxyproto.V2 { // the service would get something else than was wished
		return proxyproto.Emission{}, fmt.Errorf("version %d of the PROXY protocol", p[0])
	}
	return e, nil
}

// Reason says why an open was refused. It is the code of mux's result.
type Reason uint8

// The reasons of a refusal.
const (
	Refused      Reason = 1 // the service refused the connection
	Unreachable  Reason = 2 // the service could not be reached
	NoSuchTunnel Reason = 3 // the client does not offer the tunnel
	Overloaded   Reason = 4 // the client has too many connections
	NotAllowed   Reason = 5
	TimedOut     Reason = 6 // the service did not answer in time
	GoingAway    Reason = 7 // the client takes no new connections
)

func (r Reason) String() string {
	switch r {
	case Refused:
		return "refused"
	case Unreachable:
		return "unreachable"
	case NoSuchTunnel:
		return "no such tunnel"
	case Overloaded:
		return "overloaded"
	case NotAllowed:
		return "not allowed"
	case TimedOut:
		return "timed out"
	case GoingAway:
		return "going away"
	default:
		return fmt.Sprintf("reason %d", uint8(r))
	}
}
