package peek

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"culvert/internal/hostname"
)

// MaxClientHello is the most that a ClientHello may have, with its records' headers. Those of browsers have 2 KiB, and
// no server takes one of more than this.
const MaxClientHello = 64 << 10

// ClientHello is what a ClientHello tells without a key.
type ClientHello struct {
	// Host is the canonical host name that it asks for; "" if it names none, or none that can be a host name.
	Host string
	// ALPN are the protocols that it offers, in its order.
	ALPN []string
}

// Sizes and types of TLS 1.0 to 1.3, which share this beginning.
const (
	recordHeader    = 5
	recordHandshake = 22
	maxRecord       = 16 << 10
	messageHeader   = 4
	messageHello    = 1
	extensionName   = 0
	extensionALPN   = 16
	hostNameType    = 0
)

// Hello finds the ClientHello in bytes that come bit by bit. What it has looked at it does not look at again, so that a
// stranger who sends records of single bytes costs no more than others. The zero value is ready for use.
type Hello struct {
	ClientHello // once Match has said Yes

	at      int    // records up to here are in message
	message []byte // the beginning of the handshake message
}

// Match reads the ClientHello that p begins with, in however many records it comes; from one call to the next, p may only
// grow. No means that it never becomes one: it is not TLS, is malformed or is longer than MaxClientHello.
func (h *Hello) Match(p []byte) Match {
	for {
		size, match := record(p[h.at:])
		body := p[min(len(p), h.at+recordHeader):]
		switch {
		case match == No, h.at+recordHeader+size > MaxClientHello,
			len(h.message) == 0 && len(body) > 0 && body[0] != messageHello:
			return No
		case match == More, len(body) < size:
			return More
		}
		h.message = append(h.message, body[:size]...)
		h.at += recordHeader + size
		if len(h.message) < messageHeader {
			continue
		}
		whole := messageHeader + int(binary.BigEndian.Uint32(h.message)&0xffffff)
		if whole > MaxClientHello {
			return No
		}
		if len(h.message) >= whole {
			var ok bool
			if h.ClientHello, ok = parseHello(h.message[messageHeader:whole]); !ok {
				return No
			}
			return Yes
		}
	}
}

// record gives the size of a record that may hold a piece of a handshake.
func record(p []byte) (size int, match Match) {
	if len(p) > 0 && p[0] != recordHandshake || len(p) > 1 && p[1] != 3 || len(p) > 2 && p[2] > 4 {
		return 0, No
	}
	if len(p) < recordHeader {
		return 0, More
	}
	size = int(binary.BigEndian.Uint16(p[3:]))
	if size == 0 || size > maxRecord {
		return 0, No
	}
	return size, Yes
}

// field is bytes that are read from the front. One that is too short gives nothing from there on.
type field struct {
	p   []byte
	bad bool
}

func (f *field) take(n int) []byte {
	if f.bad || n > len(f.p) {
		f.bad = true
		return nil
	}
	v := f.p[:n]
	f.p = f.p[n:]
	return v
}

func (f *field) uint(size int) (n int) {
	for _, b := range f.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

// vector is a field whose length stands before it, in size bytes.
func (f *field) vector(size int) field { return field{p: f.take(f.uint(size)), bad: f.bad} }

// parseHello reads the message behind its header.
func parseHello(p []byte) (ClientHello, bool) {
	f := field{p: p}
	f.take(2 + 32) // version and random
	f.vector(1)    // session id
	f.vector(2)    // cipher suites
	f.vector(1)    // compression methods
	if f.bad {
		return ClientHello{}, false
	}
	if len(f.p) == 0 { // without extensions, as before TLS 1.2
		return ClientHello{}, true
	}
	extensions := f.vector(2)
	if f.bad || len(f.p) > 0 {
		return ClientHello{}, false
	}
	var h ClientHello
	seen := map[int]bool{}
	for len(extensions.p) > 0 {
		kind := extensions.uint(2)
		body := extensions.vector(2)
		if extensions.bad {
			return ClientHello{}, false
		}
		if seen[kind] { // which of two names was meant, this side and the server may see differently
			return ClientHello{}, false
		}
		seen[kind] = true
		ok := true
		switch kind {
		case extensionName:
			h.Host, ok = serverName(body)
		case extensionALPN:
			h.ALPN, ok = protocols(body)
		}
		if !ok {
			return ClientHello{}, false
		}
	}
	return h, true
}

// serverName reads the one host name of the list.
func serverName(body field) (host string, ok bool) {
	list := body.vector(2)
	if body.bad || len(body.p) > 0 || len(list.p) == 0 {
		return "", false
	}
	named := false
	for len(list.p) > 0 {
		kind := list.uint(1)
		name := list.vector(2)
		if list.bad {
			return "", false
		}
		if kind != hostNameType {
			continue
		}
		if named || len(name.p) == 0 {
			return "", false
		}
		named = true
		host = canonical(string(name.p))
	}
	return host, true
}

// canonical is a host name in the form of routes; "" for what is none. Addresses are not allowed in a ClientHello.
func canonical(name string) string {
	host, err := hostname.Canonical(name)
	if _, no := netip.ParseAddr(host); err != nil || no == nil || strings.Contains(name, ":") {
		return ""
	}
	return host
}

func protocols(body field) ([]string, bool) {
	list := body.vector(2)
	if body.bad || len(body.p) > 0 {
		return nil, false
	}
	var names []string
	for len(list.p) > 0 {
		name := list.vector(1)
		if list.bad || len(name.p) == 0 {
			return nil, false
		}
		names = append(names, string(name.p))
	}
	return names, true
}

// UnrecognizedName is what to send to a visitor before its connection is closed whose host nobody serves: TLS's own fatal
// alert, so that it is not taken for a fault of the network.
func UnrecognizedName() []byte {
	const alert, fatal, unrecognizedName = 21, 2, 112
	return []byte{alert, 3, 3, 0, 2, fatal, unrecognizedName}
}
