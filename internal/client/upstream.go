package client

import (
	"culvert/internal/tunnel"
	"culvert/internal/upstream/health"
)

// Upstream is one local service and the tunnel under which the client offers it.
type Upstream struct {
	Tunnel tunnel.Name
	Scheme Scheme
	// Network and Address are what to dial: "tcp" or "udp" with host:port or "unix" with a path. For File, Address is the folder.
	Network, Address string
	// Spec is the upstream in the form of the status command: "*=http://127.0.0.1:8080", "localhost:22", "2222=host:22",
	// "udp/53=host:53".
	Spec string
	// Divert is the traffic that the client wishes for, if the tunnel is a divert. Its time begins with the server's first yes; what
	// is left of it is offered to a server that the client comes back to.
	Divert *tunnel.Diversion
	// Check is how the service is checked; nil for not at all. File has none.
	Check *health.Check
}

// Scheme is what the local service speaks.
type Scheme string

// The schemes of upstreams.
const (
	SchemeTCP   Scheme = "tcp"
	SchemeUDP   Scheme = "udp"
	SchemeHTTP  Scheme = "http"
	SchemeHTTPS Scheme = "https"
	SchemeH2C   Scheme = "h2c"
	SchemeFile  Scheme = "file"
)
