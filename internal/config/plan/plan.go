// Package plan is the data plane as the configuration file has it: entrypoints, their routes, upstreams and their members,
// as plain values.
//
// What Read returns is complete (every default is filled in) and right (names resolve, sockets do not collide, every route
// can be reached), so that who builds on it has nothing left to check. Entrypoints and upstreams of two plans compare, which is how
// a reload finds what may stay. The package opens nothing and resolves no host.
package plan

import (
	"net/netip"
	"time"

	"culvert/internal/config/file"
	"culvert/internal/hostname"
	"culvert/internal/tunnel"
)

// Plan is the data plane of a file. The zero Plan has nothing, as a server without a file has.
type Plan struct {
	Entrypoints []Entrypoint `key:"entrypoints" help:"what accepts visitors"`
	Upstreams   []Upstream   `key:"upstreams" help:"named sets of members that routes send visitors to"`
}

// Protocol is what an entrypoint speaks.
type Protocol string

// The protocols.
const (
	TCP Protocol = "tcp" // connections, routed by source
	UDP Protocol = "udp" // datagrams, in flows
	TLS Protocol = "tls" // connections, routed by the name in the ClientHello too; not decrypted
)

// Network is "tcp" or "udp", as the package net names them.
func (p Protocol) Network() string {
	if p == UDP {
		return "udp"
	}
	return "tcp"
}

// Entrypoint is one socket that accepts visitors, and where they go.
type Entrypoint struct {
	Name     string   `key:"name" required:"true" help:"name of the entrypoint in logs, metrics and status; unique"`
	Protocol Protocol `key:"protocol" selects:"true" default:"tcp" values:"tcp udp tls" help:"what visitors speak; tls routes by the name that they ask for, and decrypts nothing"`
	// Addr is host:port in canonical form, as net.Listen takes it; the host is empty for every address.
	Addr string `key:"addr" required:"true" unit:"HOST:PORT" help:"address to listen on; :PORT is every address"`
	Access
	Streams
	Flows
	// IdleTimeout is 0 for none.
	IdleTimeout time.Duration `key:"idle_timeout" unit:"DURATION" shown:"60s for udp, 180s with profile: vpn, 0 otherwise" help:"end what has been silent for this long; 0 is never, and not for udp"`
	Routes      []Route       `key:"routes" required:"true" help:"where visitors go: the first that matches"`
}

// The entrypoints that flags of a server make. A file may have the settings of TLSEntrypoint, and must not have the other.
const (
	TLSEntrypoint  = "tls"  // takes the hosts that clients offer by TLS
	HTTPEntrypoint = "http" // of package proxy, not of a plan
)

// NewEntrypoint is an entrypoint as a file has it that says no more of it, but without routes.
func NewEntrypoint(name string, p Protocol, addr string) Entrypoint {
	e := Entrypoint{Name: name, Protocol: p, Addr: addr}
	file.Defaults(&e, Options())
	e.ProxyProtocol = ProxyAccept{Accept: AcceptOff}
	e.IdleTimeout = e.defaultIdle()
	return e
}

// The idle timeouts of flows.
const (
	idleUDP = time.Minute
	idleVPN = 3 * time.Minute
)

// defaultIdle is the idle timeout of an entrypoint for which none is given.
func (e *Entrypoint) defaultIdle() time.Duration {
	switch {
	case e.Protocol != UDP:
		return 0
	case e.Profile == VPN:
		return idleVPN
	}
	return idleUDP
}

// Access is who may come in, and by whose word.
type Access struct {
	ProxyProtocol ProxyAccept    `key:"proxy_protocol" words:"off" help:"PROXY header of a load balancer in front; with udp, one of version 2 in every datagram"`
	Allow         []netip.Prefix `key:"allow" unit:"CIDR" shown:"data_allow_ips" help:"addresses that may connect; [0.0.0.0/0, ::/0] is everyone whatever data_allow_ips says"`
	ProbeSources  []netip.Prefix `key:"probe_sources" unit:"CIDR" only:"tcp tls" help:"addresses of load balancers whose checks connect and close: answered here, no member sees them"`
	MaxConns      int            `key:"max_conns" unit:"N" min:"0" only:"tcp tls" help:"connections at once, each from when its PROXY header or ClientHello is there; 0 is no limit"`
}

// Acceptance says whether PROXY headers come in.
type Acceptance string

// The acceptances.
const (
	AcceptOff  Acceptance = "off"
	AcceptAuto Acceptance = "auto" // both versions
)

// ProxyAccept is what is expected of a balancer in front.
type ProxyAccept struct {
	Accept  Acceptance     `key:"accept" required:"true" default:"off" values:"auto v1 v2 off" help:"auto takes both versions, as v1 and v2 do"`
	Trusted []netip.Prefix `key:"trusted" unit:"CIDR" help:"whose header counts; must be given with accept. A header of anyone else is refused"`
	Timeout time.Duration  `key:"timeout" default:"5s" unit:"DURATION" above:"0s" help:"how long a trusted source may take to send it"`
}

// WhenEmpty is what happens to visitors while no member is usable.
type WhenEmpty string

// What may happen.
const (
	Refuse WhenEmpty = "refuse" // the port closes
	Reset  WhenEmpty = "reset"  // the connection is accepted and reset
	Wait   WhenEmpty = "queue"  // the connection waits
)

// Streams is what only connections have: of tcp and tls.
type Streams struct {
	WhenEmpty         WhenEmpty     `key:"when_empty" default:"refuse" values:"refuse reset queue" only:"tcp tls" help:"while no member is usable: refuse closes the port, reset accepts and resets, queue lets visitors wait"`
	QueueTimeout      time.Duration `key:"queue_timeout" default:"10s" unit:"DURATION" above:"0s" only:"tcp tls" help:"how long they wait, with when_empty: queue"`
	HelloTimeout      time.Duration `key:"hello_timeout" default:"5s" unit:"DURATION" above:"0s" only:"tls" help:"how long a visitor may take to send its ClientHello"`
	HalfClosedTimeout time.Duration `key:"half_closed_timeout" default:"10m" unit:"DURATION" only:"tcp tls" help:"how long a connection lives that one side has closed; 0 is for ever"`
}

// Profile is a set of defaults for a kind of UDP traffic.
type Profile string

// The profiles.
const (
	DefaultProfile Profile = "default"
	VPN            Profile = "vpn" // flows that may be silent for minutes
)

// Mode is how datagrams find their member.
type Mode string

// The modes.
const (
	Session   Mode = "session"    // a flow stays on its member
	PerPacket Mode = "per_packet" // each datagram by itself
)

// Flows is what only datagrams have. The limits are those of package proxy, where a client opens the port.
type Flows struct {
	Profile             Profile `key:"profile" default:"default" values:"default vpn" only:"udp" help:"defaults for a kind of traffic: vpn keeps flows that are silent for minutes"`
	Mode                Mode    `key:"mode" default:"session" values:"session per_packet" only:"udp" help:"session keeps a flow on its member; per_packet balances each datagram by itself, for syslog and the like"`
	MaxFlows            int     `key:"max_flows" unit:"N" min:"1" default:"4096" only:"udp" help:"flows at once; when full, a new one gets the place of one that is over, or is dropped"`
	MaxFlowsPerSource   int     `key:"max_flows_per_source" unit:"N" min:"1" default:"2048" only:"udp" help:"flows at once of one source address"`
	MaxPacketsPerSource int     `key:"max_packets_per_source" unit:"N" min:"0" only:"udp" help:"datagrams a second of one source address; 0 is no limit"`
}

// OnDown is what a route does while its upstream has no usable member.
type OnDown string

// What it may do.
const (
	Fail     OnDown = "fail"     // the visitor is told
	Fallback OnDown = "fallback" // the routes below are tried
)

// Route sends visitors that match to an upstream.
type Route struct {
	Name     string `key:"name" shown:"its upstream's name" help:"name of the route in logs, metrics and status"`
	Match    Match  `key:"match" help:"whom it is for: all conditions given must hold; everyone, if left out"`
	Upstream string `key:"upstream" required:"true" help:"name of an upstream, or a tunnel: tcp/2222, name/laptop"`
	OnDown   OnDown `key:"on_down" default:"fail" values:"fail fallback" help:"while the upstream has no usable member: fail, or fallback to the routes below"`
}

// Tunnel is the tunnel that a route names instead of an upstream of the file; false if it names an upstream.
func (r Route) Tunnel() (tunnel.Name, bool) {
	n, err := tunnel.ParseName(r.Upstream)
	return n, err == nil
}

// Match is whom a route is for. An empty condition holds for everyone.
type Match struct {
	Source []netip.Prefix     `key:"source" unit:"CIDR" help:"addresses of visitors"`
	Host   []hostname.Pattern `key:"host" unit:"HOST" help:"names asked for in the ClientHello, of entrypoints with protocol: tls; *.example.com is every name below"`
	// Percent is 0 for everyone.
	Percent float64 `key:"percent" unit:"N" above:"0" max:"100" shown:"100" help:"share of the visitors, by chance"`
}

// Everyone says whether the match has no condition.
func (m Match) Everyone() bool {
	return len(m.Source) == 0 && len(m.Host) == 0 && (m.Percent == 0 || m.Percent == 100)
}

// Upstream is a named set of members.
type Upstream struct {
	Name string `key:"name" required:"true" help:"name of the upstream; unique"`
	// Balance is one of the policies of package balancer.
	Balance       string    `key:"balance" default:"round_robin" values:"round_robin least_conn random_two source_hash first" help:"which member is next: in turn by weight, the least busy, the less busy of two by chance, by the source address, or the first that is usable"`
	ProxyProtocol ProxySend `key:"proxy_protocol" words:"off v1 v2" help:"PROXY header to members: off, v1, v2, or more in detail"`
	Members       []Member  `key:"members" required:"true" help:"where connections go"`
	// Health is nil for no check.
	Health    *Health       `key:"health" help:"active check of every member; exactly one of tcp, http, expect and udp"`
	Connect   Connect       `key:"connect" help:"how members are connected to"`
	Queue     Queue         `key:"queue" help:"visitors that wait while all members are at max_conns"`
	SlowStart time.Duration `key:"slow_start" unit:"DURATION" help:"how long a member that comes back takes to get its full share; 0 is at once"`
	Eject     Eject         `key:"eject" words:"off" help:"members that fail are left out for a time; off for never"`
	// CloseOnDown has the connections of a member reset when a check marks it down.
	CloseOnDown bool `key:"close_on_down" help:"reset the connections of a member that a check marks down"`
}

// ProxyVersion is the version of a PROXY header.
type ProxyVersion string

// The versions.
const (
	SendOff ProxyVersion = "off"
	SendV1  ProxyVersion = "v1"
	SendV2  ProxyVersion = "v2"
)

// UDPHeader says which datagrams carry the header.
type UDPHeader string

// Which may.
const (
	EveryDatagram UDPHeader = "every"
	FirstDatagram UDPHeader = "first"
)

// The TLVs that a header of version 2 may carry.
const (
	TLVAuthority = "authority" // the name in the ClientHello
	TLVUniqueID  = "unique_id" // the id of the connection, as in the log
	TLVChecksum  = "crc32c"
)

// ProxySend is the PROXY header that members get.
type ProxySend struct {
	Version   ProxyVersion `key:"version" default:"off" values:"off v1 v2" help:"version of the header"`
	TLVs      []string     `key:"tlvs" values:"authority unique_id crc32c" help:"what a header of version v2 says besides the addresses"`
	UDPHeader UDPHeader    `key:"udp_header" default:"every" values:"every first" help:"datagrams that carry the header: every, as the specification has it, or the first of a flow"`
}

// Member is one place of an upstream: an address or a tunnel, exactly one of the two.
type Member struct {
	// Address is host:port in canonical form, or unix:/path.
	Address string `key:"address" unit:"HOST:PORT" help:"address of the member: HOST:PORT or unix:/PATH"`
	// Tunnel stands for every client that offers it; the zero Name if there is an address.
	Tunnel tunnel.Name `key:"tunnel" unit:"TUNNEL" help:"instead of an address: every client that offers this tunnel, as in name/laptop or tcp/2222"`
	// Name is never empty: the address or the tunnel, if it has no other.
	Name     string `key:"name" shown:"its address or tunnel" help:"name of the member in logs, metrics and status; unique in its upstream"`
	Weight   int    `key:"weight" default:"1" unit:"N" min:"1" max:"65536" help:"its share, beside those of the others"`
	MaxConns int    `key:"max_conns" unit:"N" min:"0" help:"connections at once; 0 is no limit"`
	Backup   bool   `key:"backup" help:"used only while no other member is usable"`
}

// Connect is how members are connected to.
type Connect struct {
	// Timeout is 0 for the default, which depends on whom else there is to try.
	Timeout time.Duration `key:"timeout" unit:"DURATION" above:"0s" shown:"1s while there is another member or route to try, 3s for the last" help:"how long one attempt may take"`
	// Retries is the number of members tried after the first.
	Retries int `key:"retries" default:"2" unit:"N" min:"0" help:"other members tried when the first fails"`
}

// Queue is who may wait while all members are at their limit. Max 0 is nobody.
type Queue struct {
	Max     int           `key:"max" unit:"N" min:"0" help:"visitors that may wait; 0 is none"`
	Timeout time.Duration `key:"timeout" default:"5s" unit:"DURATION" above:"0s" help:"how long each may wait"`
}

// Eject is when members that fail are left out. After is negative for never.
type Eject struct {
	After int           `key:"after" default:"3" unit:"N" min:"1" help:"failures in a row"`
	For   time.Duration `key:"for" default:"10s" unit:"DURATION" above:"0s" help:"how long it is left out the first time"`
	Most  time.Duration `key:"most" default:"5m" unit:"DURATION" above:"0s" help:"how long at most, when it goes on failing"`
}

// Off says whether members are never left out.
func (e Eject) Off() bool { return e.After < 0 }

// Health is an active check. Exactly one of the four kinds is not nil.
type Health struct {
	TCP    *TCPCheck    `key:"tcp" help:"connect; no settings of its own: {}"`
	HTTP   *HTTPCheck   `key:"http" help:"ask for a path"`
	Expect *ExpectCheck `key:"expect" help:"connect, send, and read what must come back; a process that hangs fails it"`
	UDP    *ExpectCheck `key:"udp" help:"send a datagram, and wait for one that must come back"`

	Interval time.Duration `key:"interval" default:"2s" unit:"DURATION" min:"10ms" help:"time between checks of one member"`
	Timeout  time.Duration `key:"timeout" default:"1s" unit:"DURATION" min:"10ms" help:"how long one check may take, at most interval; interval, where that is shorter and this is left out"`
	Rise     int           `key:"rise" default:"2" unit:"N" min:"1" max:"1000" help:"successes in a row that make a member usable"`
	Fall     int           `key:"fall" default:"3" unit:"N" min:"1" max:"1000" help:"failures in a row that make it unusable"`
	// Port is 0 for the member's own.
	Port uint16 `key:"port" unit:"PORT" shown:"the member's" help:"another port of the member to check"`
	// TLS is nil for a check in the clear.
	TLS *CheckTLS `key:"tls" help:"speak TLS, as a member does whose visitors' TLS is passed through; {} is enough. tcp is then content with the handshake"`
}

// CheckTLS is how a check speaks TLS.
type CheckTLS struct {
	ServerName string `key:"server_name" unit:"HOST" shown:"http's host, else the member's" help:"the name to ask for, which the certificate must have"`
	Insecure   bool   `key:"insecure" help:"take any certificate, such as one of a private CA: it is a check, no visitor relies on it"`
}

// TCPCheck connects.
type TCPCheck struct{}

// HTTPCheck asks for a path.
type HTTPCheck struct {
	Method string `key:"method" default:"GET" values:"GET HEAD OPTIONS" help:"method"`
	Path   string `key:"path" default:"/" unit:"PATH" help:"path to ask for"`
	// Host is empty for the member's address.
	Host   string        `key:"host" unit:"HOST" shown:"the member's address" help:"Host header"`
	Status []StatusRange `key:"status" unit:"CODES" default:"200-399" help:"status codes that are right: 200, 200-399"`
	Expect string        `key:"expect" raw:"true" unit:"TEXT" help:"what the body must hold; anything, if left out"`
}

// StatusRange is a range of HTTP status codes, ends included.
type StatusRange struct{ From, To int }

// ExpectCheck sends something and reads an answer, byte for byte.
type ExpectCheck struct {
	Send   string `key:"send" raw:"true" unit:"TEXT" help:"what is sent; may be left out where the member speaks first"`
	Expect string `key:"expect" raw:"true" unit:"TEXT" help:"what the answer must hold; any answer, if left out"`
}
