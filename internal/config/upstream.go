package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"culvert/internal/client"
	"culvert/internal/config/file"
	"culvert/internal/hostname"
	"culvert/internal/tunnel"
)

// maxUpstream bounds a typed upstream; the longest host and path fit.
const maxUpstream = 1024

// ParseUpstream reads an upstream as typed, "[WHERE=]TARGET", in any of the forms that the mode has:
//
//	http://127.0.0.1:3000                   HTTP for every host
//	app.example.com/api=http://…            HTTP by host and path prefix; *.dev.example.com for all below
//	2222=192.168.1.12:22, 192.168.1.12:22   TCP by port; the same port if none is given
//	192.168.1.12                            TCP at each of ports
//	udp/51820=10.0.0.5:51820                UDP by port; the client of UDP alone has the forms of TCP too
//	tls/api.example.com=127.0.0.1:6443      TLS by the name that visitors ask for, not decrypted
//	name/db=10.0.0.5:5432                   private, by name
//
// A target is http://, https:// or h2c:// (HTTP/2 without TLS) with a host and a port, HOST:PORT for TCP, unix:PATH for
// either, or file:FOLDER for HTTP. The Spec of every result is in the form of the status command and is read again as
// the same upstream. ports is used by a bare host alone: it yields an upstream for each.
func ParseUpstream(mode Mode, spec string, ports []uint16) ([]client.Upstream, error) {
	if len(spec) > maxUpstream || !file.Printable(spec) {
		return nil, errors.New("longer than a line, or not text")
	}
	where, target, both := cutUpstream(spec)
	if !both && digits(target) {
		return nil, portAlone(mode, target)
	}
	name, err := parseWhere(where, both)
	if err != nil {
		return nil, err
	}
	t, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	if !both && t.bare() {
		return bareUpstreams(mode, t, ports)
	}
	u, err := join(name, t, both)
	if err != nil {
		return nil, err
	}
	if u, err = inMode(mode, u); err != nil {
		return nil, err
	}
	if err := allowed(mode, u, spec); err != nil {
		return nil, err
	}
	return []client.Upstream{u}, nil
}

// portAlone is for those who know tunnels that take nothing else.
func portAlone(mode Mode, port string) error {
	port = shorten(port)
	switch mode {
	case HTTP:
		return fmt.Errorf("%[1]q is a port alone; write http://127.0.0.1:%[1]s", port)
	case TCP, UDP:
		return fmt.Errorf("%[1]q is a port alone; write 127.0.0.1:%[1]s", port)
	}
	return fmt.Errorf("%[1]q is a port alone; write http://127.0.0.1:%[1]s, or 127.0.0.1:%[1]s for its bytes", port)
}

// cutUpstream cuts at the first '=' unless it belongs to the target already: "http://host/?a=b" has no left side.
func cutUpstream(spec string) (where, target string, both bool) {
	spec = strings.TrimSpace(spec)
	where, target, both = strings.Cut(spec, "=")
	if !both || strings.Contains(where, "://") || strings.HasPrefix(where, "unix:") || strings.HasPrefix(where, "file:") {
		return "", spec, false
	}
	return strings.TrimSpace(where), strings.TrimSpace(target), true
}

// parseWhere reads the left side: the tunnel's name. The zero Name is of a target that stands alone.
func parseWhere(s string, both bool) (tunnel.Name, error) {
	if !both {
		return tunnel.Name{}, nil
	}
	kind, rest, slash := strings.Cut(s, "/")
	switch {
	case s == "":
		return tunnel.Name{}, errors.New("nothing stands before the '='; write a host, a port or name/NAME there, or leave the '=' out")
	case slash && kind == "tls":
		host, err := hostname.ParsePattern(rest)
		if err != nil {
			return tunnel.Name{}, fmt.Errorf("%w; write tls/HOST, as in tls/api.example.com, tls/*.example.com or tls/*", err)
		}
		return tunnel.TLSName(host), nil
	case slash && kind == "udp":
		port, err := parsePort(rest)
		if err != nil {
			return tunnel.Name{}, err
		}
		return tunnel.UDPName(port), nil
	case slash && kind == "tcp":
		return tunnel.Name{}, fmt.Errorf("write the port alone: %s=HOST:PORT", shorten(rest))
	case slash && kind == "name":
		if !tunnel.ValidPrivate(rest) {
			return tunnel.Name{}, fmt.Errorf("%q is not a name; use 1 to 128 letters, digits, '.', '-' and '_'", shorten(rest))
		}
		return tunnel.PrivateName(rest), nil
	case digits(s):
		port, err := parsePort(s)
		if err != nil {
			return tunnel.Name{}, err
		}
		return tunnel.TCPName(port), nil
	}
	host, err := hostname.ParsePattern(kind)
	if err != nil {
		return tunnel.Name{}, fmt.Errorf("%w; write a host such as app.example.com, *.example.com or *", err)
	}
	prefix, err := parsePath(rest)
	if err != nil {
		return tunnel.Name{}, err
	}
	return tunnel.HTTPName(host, prefix), nil
}

// parsePath reads a path prefix without its first slash; "" stays "".
func parsePath(s string) (string, error) {
	s = strings.TrimRight(s, "/")
	if s == "" {
		return "", nil
	}
	odd := func(c rune) bool {
		return unicode.IsSpace(c) || !unicode.IsPrint(c) || strings.ContainsRune("?#%\\", c)
	}
	if p := "/" + s; path.Clean(p) == p && utf8.ValidString(p) && !strings.ContainsFunc(p, odd) {
		return p, nil
	}
	return "", fmt.Errorf("the path %q is not a plain prefix such as /api: no dots, double slashes, '%%', '?' or '#'", shorten("/"+s))
}

// target is a right side: what to dial and how to write it.
type target struct {
	scheme  client.Scheme // "" for a Unix socket, which speaks what the left side wants
	network string
	address string // host:port, a path, or a host alone
	text    string // as in status
	port    uint16
}

// bare says whether the target is a host without a port.
func (t target) bare() bool { return t.scheme == client.SchemeTCP && t.port == 0 }

func parseTarget(s string) (target, error) {
	if p, ok := strings.CutPrefix(s, "unix:"); ok {
		return pathTarget("unix", p)
	}
	if p, ok := strings.CutPrefix(s, "file:"); ok {
		return pathTarget("file", p)
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return tcpTarget(s)
	}
	switch strings.ToLower(scheme) {
	case "http", "https", "h2c":
		return httpTarget(strings.ToLower(scheme), s)
	case "tcp":
		return target{}, fmt.Errorf("write %s without tcp://", shorten(rest))
	case "udp":
		return target{}, fmt.Errorf("write %s without udp://, and udp/PORT= before it", shorten(rest))
	case "tls":
		return target{}, fmt.Errorf("write %s without tls://, and tls/HOST= before it", shorten(rest))
	}
	return target{}, fmt.Errorf("the scheme %q is unknown; use http, https, h2c, unix: or file:, or HOST:PORT for TCP", shorten(scheme))
}

// pathTarget reads unix:PATH and file:FOLDER, also in the form of a URL with an empty host.
func pathTarget(kind, p string) (target, error) {
	if rest, ok := strings.CutPrefix(p, "//"); ok && strings.HasPrefix(rest, "/") {
		p = rest
	}
	if p == "" || strings.HasPrefix(p, "//") {
		return target{}, fmt.Errorf("write %s:/PATH", kind)
	}
	p = path.Clean(strings.TrimSpace(p))
	if strings.TrimSpace(p) != p { // it would be lost when it is read again
		return target{}, fmt.Errorf("the path %q ends in a space; write another", shorten(p))
	}
	t := target{network: kind, address: p, text: kind + ":" + p}
	if kind == "file" {
		t.network, t.scheme = "", client.SchemeFile
	}
	return t, nil
}

func httpTarget(scheme, s string) (target, error) {
	if left, right, two := strings.Cut(s, "="); two && strings.Contains(right, "://") {
		_, host, _ := strings.Cut(left, "://")
		return target{}, fmt.Errorf("leave out the scheme before the '='; write %s=…", shorten(host))
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil { // either may hold a password: it is not quoted
		return target{}, fmt.Errorf("not a URL of a host and a port; write %s://HOST:PORT", scheme)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return target{}, fmt.Errorf("a target has no path; to route by path write HOST%s=%s://%s",
			shorten(strings.TrimRight(u.Path, "/")), scheme, shorten(u.Host))
	}
	host, err := dialHost(u.Hostname())
	if err != nil {
		return target{}, err
	}
	port, written := uint16(80), host
	if strings.Contains(host, ":") {
		written = "[" + host + "]"
	}
	if scheme == "https" {
		port = 443
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if port, err = parsePort(p); err != nil {
			return target{}, err
		}
		written = joinPort(host, port)
	}
	return target{
		scheme: client.Scheme(scheme), network: "tcp", address: joinPort(host, port),
		text: scheme + "://" + written, port: port,
	}, nil
}

func tcpTarget(s string) (target, error) {
	host, p, hasPort := cutPort(s)
	if !hasPort && strings.HasSuffix(s, ":") {
		return target{}, fmt.Errorf("%q has no port after the colon", shorten(s))
	}
	if _, _, two := cutPort(host); two { // which hostname.Canonical would drop
		return target{}, fmt.Errorf("%q has more than one port; write PORT=HOST:PORT, as in 2222=127.0.0.1:22", shorten(s))
	}
	host, err := dialHost(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if err != nil {
		return target{}, err
	}
	if host == "unix" || host == "file" { // its port would be read as a path
		return target{}, fmt.Errorf("a host named %s cannot be told from %s:PATH; give its address", host, host)
	}
	if !hasPort {
		return target{scheme: client.SchemeTCP, network: "tcp", address: host, text: host}, nil
	}
	port, err := parsePort(p)
	if err != nil {
		return target{}, err
	}
	address := joinPort(host, port)
	return target{scheme: client.SchemeTCP, network: "tcp", address: address, text: address, port: port}, nil
}

// dialHost is the canonical form of a host to dial; a link-local address keeps its zone.
func dialHost(host string) (string, error) {
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() != "" {
		return addr.String(), nil
	}
	return hostname.Canonical(host)
}

func joinPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// join makes an upstream of both sides.
func join(name tunnel.Name, t target, both bool) (client.Upstream, error) {
	http := t.scheme != client.SchemeTCP && t.scheme != ""
	if !both {
		switch {
		case t.scheme == "":
			return client.Upstream{}, fmt.Errorf("a socket needs a host or a port before it: *=%s or 8080=%s", t.text, t.text)
		case http:
			every, _ := hostname.ParsePattern("*")
			name = tunnel.HTTPName(every, "")
		default:
			return client.Upstream{Tunnel: tunnel.TCPName(t.port), Scheme: t.scheme, Network: t.network, Address: t.address, Spec: t.text}, nil
		}
	}
	left := strings.TrimPrefix(name.String(), string(tunnel.HTTP)+"/")
	if name.Kind() == tunnel.TCP {
		left = strconv.Itoa(int(name.Port()))
	}
	u := client.Upstream{Tunnel: name, Scheme: t.scheme, Network: t.network, Address: t.address, Spec: left + "=" + t.text}
	switch {
	case len(name.String()) > maxUpstream:
		return client.Upstream{}, errors.New("the path is too long")
	case name.Kind() == tunnel.HTTP && t.scheme == "":
		u.Scheme = client.SchemeHTTP
	case name.Kind() != tunnel.HTTP && t.scheme == "":
		u.Scheme = client.SchemeTCP
	case name.Kind() == tunnel.HTTP && !http:
		return client.Upstream{}, fmt.Errorf("a host is routed by HTTP; name the scheme: %s=http://%s", shorten(left), t.text)
	case name.Kind() != tunnel.HTTP && http:
		return client.Upstream{}, fmt.Errorf("%s carries bytes, not HTTP; write %s=HOST:PORT, or a host before the '='", describeTunnel(name), shorten(left))
	case name.Kind() != tunnel.HTTP && t.port == 0:
		return client.Upstream{}, fmt.Errorf("%q has no port; write %s=%s:PORT", t.text, shorten(left), t.text)
	case name.Kind() == tunnel.TCP && name.Port() == t.port:
		u.Spec = t.text
	}
	return u, nil
}

// inMode is the upstream as a client of the mode means it: to one of UDP alone, a port is one of UDP.
func inMode(mode Mode, u client.Upstream) (client.Upstream, error) {
	if u.Tunnel.Kind() == tunnel.TCP && mode == UDP {
		u.Tunnel = tunnel.UDPName(u.Tunnel.Port())
		_, target, both := cutUpstream(u.Spec)
		if !both {
			target = u.Spec
		}
		u.Spec = u.Tunnel.String() + "=" + target
	}
	switch {
	case u.Tunnel.Kind() != tunnel.UDP:
		return u, nil
	case u.Network != "tcp":
		return client.Upstream{}, fmt.Errorf("%s takes no datagrams; write %s=HOST:PORT", shorten(u.Address), u.Tunnel)
	}
	u.Scheme, u.Network = client.SchemeUDP, "udp"
	return u, nil
}

// bareUpstreams is a host at each of several ports, the same on both sides.
func bareUpstreams(mode Mode, t target, ports []uint16) ([]client.Upstream, error) {
	if mode == HTTP {
		return nil, fmt.Errorf("%q has no scheme; write http://%s:PORT", t.text, t.text)
	}
	if len(ports) == 0 {
		return nil, fmt.Errorf("%q has no port; write %s, or add --ports", t.text, net.JoinHostPort(t.text, "PORT"))
	}
	all := make([]client.Upstream, 0, len(ports))
	for _, port := range ports {
		address := joinPort(t.address, port)
		u, err := inMode(mode, client.Upstream{
			Tunnel: tunnel.TCPName(port), Scheme: t.scheme, Network: t.network, Address: address, Spec: address,
		})
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// allowed refuses what a client of the mode does not offer.
func allowed(mode Mode, u client.Upstream, spec string) error {
	switch kind := u.Tunnel.Kind(); {
	case kind == tunnel.HTTP && !mode.HasHTTP():
		return fmt.Errorf("%s is HTTP; use culvert http client or culvert client, or HOST:PORT for its bytes", shorten(spec))
	case kind == tunnel.TCP && !mode.HasTCP() && !strings.Contains(spec, "="):
		return fmt.Errorf("%q has no scheme; write http://%s", shorten(spec), shorten(spec))
	case kind == tunnel.UDP && !mode.HasUDP():
		return fmt.Errorf("%s is UDP; use culvert udp client or culvert client", shorten(spec))
	case kind != tunnel.HTTP && mode == HTTP:
		return fmt.Errorf("%s is not HTTP; use culvert tcp client or culvert client, or HOST=http://… for a website", shorten(spec))
	}
	return nil
}

// describeTunnel names a tunnel in a message.
func describeTunnel(n tunnel.Name) string {
	switch n.Kind() {
	case tunnel.TCP:
		return fmt.Sprintf("port %d", n.Port())
	case tunnel.UDP:
		return fmt.Sprintf("UDP port %d", n.Port())
	case tunnel.Private:
		return "name " + n.Private()
	}
	if n.Host().String() == "*" && n.Path() == "" {
		return "every host"
	}
	return "host " + n.Host().String() + n.Path()
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// bareHost says whether an upstream that could be read is a host without a port.
func bareHost(spec string) bool {
	_, right, both := cutUpstream(spec)
	t, err := parseTarget(right)
	return err == nil && !both && t.bare()
}

// parseUpstreams reads all upstreams as typed. Ports that no bare host uses are a mistake.
func (c *Client) parseUpstreams() (found Problems) {
	used := len(c.Ports) == 0
	for _, spec := range c.Upstream {
		us, err := ParseUpstream(c.Mode, spec, c.Ports)
		if err != nil {
			found.add("upstream", "", "%s", err)
			continue
		}
		used = used || bareHost(spec)
		c.Upstreams = append(c.Upstreams, us...)
	}
	if !used && len(found) == 0 {
		found.add("ports", "write the ports at the upstreams, or give --upstream HOST alone", "there is no --upstream HOST without a port to use them for")
	}
	return found
}
