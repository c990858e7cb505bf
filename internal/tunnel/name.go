// Package tunnel is the tunnel protocol on top of mux: names, hello and offers, the metadata of an open, go-away.
//
// It knows neither the server nor the client: control and client are its two users. docs/protocol.md writes the
// protocol down for a second implementation.
package tunnel

import (
	"fmt"
	"strconv"
	"strings"

	"culvert/internal/hostname"
)

// Kind is the kind of traffic that a tunnel carries.
type Kind string

// The kinds of tunnel.
const (
	HTTP    Kind = "http"   // routed by host and path, by the server
	TCP     Kind = "tcp"    // a public port of the server
	UDP     Kind = "udp"    // a public UDP port of the server
	TLS     Kind = "tls"    // routed by the name in the ClientHello, not decrypted
	Private Kind = "name"   // known by name alone, for visitors with a credential and for the server's own routes
	Divert  Kind = "divert" // live traffic of an entrypoint of the server, for a time; by an id of the client's own
)

// Name says what a client offers: "http/app.example.com/api", "tcp/2222", "udp/51820", "tls/api.example.com", "name/db".
// Two clients that offer the same name share its traffic. The zero Name is invalid.
// A Name is comparable and in canonical form.
type Name struct {
	kind Kind
	rest string
}

// HTTPName names the HTTP tunnel of a host pattern and a path prefix ("" or "/…", without a trailing slash).
func HTTPName(host hostname.Pattern, path string) Name {
	return Name{HTTP, host.String() + path}
}

// TCPName names the tunnel of a public TCP port.
func TCPName(port uint16) Name { return Name{TCP, strconv.Itoa(int(port))} }

// UDPName names the tunnel of a public UDP port.
func UDPName(port uint16) Name { return Name{UDP, strconv.Itoa(int(port))} }

// TLSName names the tunnel of TLS connections whose ClientHello asks for the host.
func TLSName(host hostname.Pattern) Name { return Name{TLS, host.String()} }

// PrivateName names a private tunnel.
func PrivateName(name string) Name { return Name{Private, name} }

// DivertName names a divert by an id that its client made up.
func DivertName(id string) Name { return Name{Divert, id} }

// ParseName reads the form that String writes. Strangers' bytes come in here: it accepts only what String can write.
func ParseName(s string) (Name, error) {
	kind, rest, ok := strings.Cut(s, "/")
	if !ok || rest == "" || len(s) > maxName {
		return Name{}, fmt.Errorf("tunnel name %.80q: want http/HOST[/PATH], tcp/PORT, udp/PORT, tls/HOST or name/NAME", s)
	}
	n := Name{Kind(kind), rest}
	switch n.kind {
	case HTTP:
		host, path, _ := strings.Cut(rest, "/")
		p, err := hostname.ParsePattern(host)
		if err != nil {
			return Name{}, fmt.Errorf("tunnel name %.80q: %w", s, err)
		}
		if p.String() != host || strings.HasSuffix(rest, "/") || strings.ContainsAny(path, "?#\x00 ") {
			return Name{}, fmt.Errorf("tunnel name %.80q: not in canonical form", s)
		}
	case TLS:
		if p, err := hostname.ParsePattern(rest); err != nil || p.String() != rest {
			return Name{}, fmt.Errorf("tunnel name %.80q: want a host in canonical form", s)
		}
	case TCP, UDP:
		port, err := strconv.ParseUint(rest, 10, 16)
		if err != nil || port == 0 || strconv.FormatUint(port, 10) != rest {
			return Name{}, fmt.Errorf("tunnel name %.80q: want a port from 1 to 65535", s)
		}
	case Private, Divert:
		if !ValidPrivate(rest) {
			return Name{}, fmt.Errorf("tunnel name %.80q: want letters, digits, '.', '-' and '_'", s)
		}
	default:
		return Name{}, fmt.Errorf("tunnel name %.80q: unknown kind, want http, tcp, udp, tls or name", s)
	}
	return n, nil
}

const maxName = 1024

// ValidPrivate says whether s can name a private tunnel: 1 to 128 letters, digits, '.', '-' and '_'.
func ValidPrivate(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// String is the name's canonical form, which is also its upstream's name.
func (n Name) String() string { return string(n.kind) + "/" + n.rest }

// Kind is the kind of traffic.
func (n Name) Kind() Kind { return n.kind }

// Port is the public port of a TCP or UDP tunnel, else 0.
func (n Name) Port() uint16 {
	if n.kind != TCP && n.kind != UDP {
		return 0
	}
	port, _ := strconv.ParseUint(n.rest, 10, 16)
	return uint16(port)
}

// Private is the name of a private tunnel, else "".
func (n Name) Private() string {
	if n.kind != Private {
		return ""
	}
	return n.rest
}

// Host is the host pattern of an HTTP or TLS tunnel, else the zero Pattern.
func (n Name) Host() hostname.Pattern {
	if n.kind != HTTP && n.kind != TLS {
		return hostname.Pattern{}
	}
	host, _, _ := strings.Cut(n.rest, "/")
	p, _ := hostname.ParsePattern(host)
	return p
}

// Path is the path prefix of an HTTP tunnel: "" or "/…".
func (n Name) Path() string {
	if i := strings.IndexByte(n.rest, '/'); n.kind == HTTP && i >= 0 {
		return n.rest[i:]
	}
	return ""
}
