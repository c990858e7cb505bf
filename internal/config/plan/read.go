package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"culvert/internal/config/file"
	"culvert/internal/hostname"
	"culvert/internal/nearest"
	"culvert/internal/tunnel"
)

// Options are what package file needs to know of a plan's types.
func Options() file.Options {
	return file.Options{Scalars: []file.Scalar{
		file.ScalarOf(parseHost),
		file.ScalarOf(parseTunnel),
		file.ScalarOf(parseStatus),
	}}
}

// Read reads the data plane of a file, complete and right. The warnings are of what is in it and has no effect; the error is
// file.Faults. Keys of the top that are not of the plan are others' business: o says whose.
func Read(doc *file.Doc, o file.Options) (p Plan, warnings file.Faults, err error) {
	o.Scalars, o.Habits = Options().Scalars, habits
	c := checker{doc: doc, plan: &p}
	if err := doc.Decode(&p, o); err != nil {
		var faults file.Faults
		if !errors.As(err, &faults) {
			return Plan{}, nil, err
		}
		c.broken(faults)
	}
	c.check()
	if err := append(c.decoding, c.faults...).Err(); err != nil {
		return Plan{}, nil, err
	}
	c.warnings.Sort()
	return p, c.warnings, nil
}

// parseHost reads a pattern of hosts.
func parseHost(text string) (hostname.Pattern, error) {
	p, err := hostname.ParsePattern(text)
	if err != nil {
		return p, fmt.Errorf("%w; write a name without scheme and port, as in app.example.com or *.example.com", err)
	}
	return p, nil
}

// parseTunnel reads the name of a tunnel that can be a member or the target of a route: one that carries bytes.
func parseTunnel(text string) (tunnel.Name, error) {
	const remedy = "write name/NAME, tcp/PORT, udp/PORT or tls/HOST"
	n, err := tunnel.ParseName(text)
	switch {
	case err != nil:
		return n, fmt.Errorf("%.80q is not the name of a tunnel; %s", text, remedy)
	case n.Kind() == tunnel.HTTP || n.Kind() == tunnel.Divert:
		return n, fmt.Errorf("the tunnel %.80q carries no plain connections; %s", text, remedy)
	}
	return n, nil
}

// String is the range as parseStatus reads it.
func (r StatusRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

func parseStatus(text string) (StatusRange, error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	low, err := strconv.ParseUint(from, 10, 16)
	high, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil || low < 100 || high > 599 || low > high {
		return StatusRange{}, fmt.Errorf("%.40q is neither a status code nor a range of them; write as in 200 or 200-399", text)
	}
	return StatusRange{int(low), int(high)}, nil
}

// SetWord takes "off", for an entrypoint that expects no header.
func (a *ProxyAccept) SetWord(string) { a.Accept = AcceptOff }

// Word is "off" where no header is expected.
func (a *ProxyAccept) Word() string {
	if a.Accept == AcceptOff {
		return string(AcceptOff)
	}
	return ""
}

// SetWord takes a version, without anything more.
func (s *ProxySend) SetWord(word string) { s.Version = ProxyVersion(word) }

// Word is the version, if there is nothing more.
func (s *ProxySend) Word() string {
	if len(s.TLVs) > 0 || s.UDPHeader != EveryDatagram {
		return ""
	}
	return string(s.Version)
}

// SetWord takes "off".
func (e *Eject) SetWord(string) { *e = Eject{After: -1} }

// Word is "off" for what never ejects.
func (e *Eject) Word() string {
	if e.Off() {
		return "off"
	}
	return ""
}

// checker finds what is wrong with a plan whose values are right one by one.
type checker struct {
	doc  *file.Doc
	plan *Plan

	upstreams map[string]int // by name
	used      map[string][]use
	faults    file.Faults
	warnings  file.Faults

	// What could not be read, which what is found here may follow from: its faults, and the paths of those and of all
	// that they are part of.
	decoding file.Faults
	unread   map[string]bool
}

// broken notes what could not be read.
func (c *checker) broken(faults file.Faults) {
	c.decoding, c.unread = faults, map[string]bool{}
	for _, f := range faults {
		c.unread[f.Path] = true
	}
}

// follows says whether a fault at path may come of one in reading: of the value itself, of what it is part of, or of a
// part of it.
func (c *checker) follows(path string) bool {
	for p := path; p != ""; p = file.Parent(p) {
		if c.unread[p] {
			return true
		}
	}
	for p := range c.unread {
		if strings.HasPrefix(p, path) && (p[len(path):] == "" || p[len(path)] == '.' || p[len(path)] == '[') {
			return true
		}
	}
	return false
}

// use is a route to an upstream.
type use struct {
	protocol Protocol
	mode     Mode
	path     string
}

func (c *checker) fault(path, remedy, format string, args ...any) {
	if c.follows(path) {
		return
	}
	c.faults = append(c.faults, c.doc.Fault(path, remedy, format, args...))
}

func (c *checker) warn(path, remedy, format string, args ...any) {
	c.warnings = append(c.warnings, c.doc.Fault(path, remedy, format, args...))
}

// given says whether a key is in the file.
func (c *checker) given(path string) bool { _, ok := c.doc.At(path); return ok }

func (c *checker) check() {
	c.upstreams, c.used = map[string]int{}, map[string][]use{}
	for i := range c.plan.Upstreams {
		u := &c.plan.Upstreams[i]
		path := file.Item("upstreams", i)
		if c.name(path, u.Name) {
			c.unique(path, u.Name, c.upstreams, i)
		}
	}
	names := map[string]int{}
	for i := range c.plan.Entrypoints {
		e := &c.plan.Entrypoints[i]
		path := file.Item("entrypoints", i)
		if e.Name == HTTPEntrypoint {
			c.fault(path+".name", "give another", "%q is the name of the entrypoint that --port opens", e.Name)
		} else if c.name(path, e.Name) {
			c.unique(path, e.Name, names, i)
		}
		c.entrypoint(e, path)
	}
	c.sockets()
	for i := range c.plan.Upstreams {
		c.upstream(&c.plan.Upstreams[i], file.Item("upstreams", i))
	}
}

// name checks the name of a thing at path.
func (c *checker) name(path, name string) bool {
	if tunnel.ValidPrivate(name) {
		return true
	}
	c.fault(path+".name", "use 1 to 128 letters, digits, '.', '-' and '_'", "%.60q is not a name", name)
	return false
}

// unique checks that a name is the first of its kind, and notes it.
func (c *checker) unique(path, name string, seen map[string]int, i int) {
	first, ok := seen[name]
	if !ok {
		seen[name] = i
		return
	}
	list := path[:strings.LastIndexByte(path, '[')]
	at, _ := c.doc.At(file.Item(list, first) + ".name")
	c.fault(path+".name", "give another", "%q is the name of %s too, in line %d", name, file.Item(list, first), at.Line)
}

func (c *checker) entrypoint(e *Entrypoint, path string) {
	addr, err := bindAddress(e.Addr)
	if err != nil {
		c.fault(path+".addr", "write HOST:PORT, as in 127.0.0.1:8080 or :8080", "%s", err)
	} else {
		e.Addr = addr
	}
	if e.Protocol == UDP && e.ProxyProtocol.Accept == "v1" {
		c.fault(path+".proxy_protocol.accept", "write v2, or off", "version v1 is not for datagrams")
	}
	c.proxyAccept(&e.ProxyProtocol, path+".proxy_protocol")
	c.idle(e, path)
	if e.WhenEmpty != Wait && c.given(path+".queue_timeout") && e.QueueTimeout != NewEntrypoint("", e.Protocol, "").QueueTimeout {
		c.warn(path+".queue_timeout", "add when_empty: queue, or leave it out", "has no effect")
	}
	c.routes(e, path)
}

func (c *checker) proxyAccept(p *ProxyAccept, path string) {
	switch p.Accept {
	case AcceptOff:
		*p = ProxyAccept{Accept: AcceptOff} // the rest is of no consequence
	case "v1", "v2":
		p.Accept = AcceptAuto // a balancer says by itself which of the two it speaks
	}
	if p.Accept == AcceptAuto && len(p.Trusted) == 0 {
		c.fault(path, "add trusted: [CIDR] with the addresses of the balancers in front",
			"trusted is missing: anyone could claim any address")
	}
}

func (c *checker) idle(e *Entrypoint, path string) {
	path += ".idle_timeout"
	switch {
	case e.Protocol != UDP:
	case !c.given(path):
		e.IdleTimeout = e.defaultIdle()
	case e.IdleTimeout == 0:
		c.fault(path, "give a time, such as 60s", "a flow that never ends would be kept for ever")
	}
}

func (c *checker) upstream(u *Upstream, path string) {
	c.members(u, path)
	uses := c.used[u.Name]
	if len(uses) == 0 && c.upstreams[u.Name] == indexOf(path) {
		c.warn(path+".name", "leave it out, or name it in a route", "no route goes to the upstream %q", u.Name)
	}
	c.proxySend(u, path+".proxy_protocol")
	c.health(u, path+".health", uses)
	overUDP := len(uses) > 0 && !slices.ContainsFunc(uses, func(u use) bool { return u.protocol != UDP })
	limited := slices.ContainsFunc(u.Members, func(m Member) bool { return m.MaxConns > 0 })
	switch {
	case u.Queue.Max > 0 && overUDP:
		c.warn(path+".queue", "leave it out", "nobody ever waits: a flow of UDP that finds no member with room is dropped")
	case u.Queue.Max > 0 && !limited:
		c.warn(path+".queue", "give the members max_conns, or leave it out", "nobody ever waits, because no member has max_conns")
	}
	if !u.Eject.Off() && u.Eject.Most < u.Eject.For {
		c.fault(path+".eject", "give most as much as for, or more", "most, %s, is less than for, %s", u.Eject.Most, u.Eject.For)
	}
	if u.CloseOnDown && u.Health == nil {
		c.warn(path+".close_on_down", "add health, or leave it out", "has no effect, because nothing checks the members")
	}
}

// indexOf is the index in a path such as "upstreams[3]".
func indexOf(path string) int {
	i, _ := strconv.Atoi(strings.TrimSuffix(path[strings.LastIndexByte(path, '[')+1:], "]"))
	return i
}

func (c *checker) proxySend(u *Upstream, path string) {
	s := u.ProxyProtocol
	if len(s.TLVs) > 0 && s.Version != SendV2 {
		c.fault(path+".tlvs", "write version: v2", "only a header of version v2 can carry them")
	}
	for i, tlv := range s.TLVs {
		if slices.Contains(s.TLVs[:i], tlv) {
			c.fault(file.Item(path+".tlvs", i), "name it once", "%s is given twice", tlv)
		}
	}
	for _, use := range c.used[u.Name] {
		if s.Version == SendV1 && use.protocol == UDP {
			c.fault(path, "write v2, or off", "version v1 is not for datagrams, and %s sends some", use.path)
			return
		}
	}
}

func (c *checker) health(u *Upstream, path string, uses []use) {
	h := u.Health
	if h == nil {
		return
	}
	kinds := 0
	for _, there := range []bool{h.TCP != nil, h.HTTP != nil, h.Expect != nil, h.UDP != nil} {
		if there {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		c.fault(path, "add tcp: {}, http: {path: /}, expect: {…} or udp: {…}", "does not say what to check")
	case kinds > 1:
		c.fault(path, "keep one of tcp, http, expect and udp", "has more than one kind of check")
	default:
		c.kind(u, path)
	}
	if h.Timeout > h.Interval && !c.given(path+".timeout") {
		h.Timeout = h.Interval
	}
	if h.Timeout > h.Interval {
		c.fault(path, "give it as much as interval, or less", "timeout, %s, is longer than interval, %s", h.Timeout, h.Interval)
	}
	if h.UDP != nil && len(uses) > 0 && !slices.ContainsFunc(uses, func(u use) bool { return u.protocol == UDP }) {
		c.warn(path+".udp", "use tcp, http or expect", "sends datagrams to members that get none otherwise")
	}
}

// maxText is how much a check may send or expect.
const maxText = 4096

// kind checks what belongs to the one kind of check that there is.
func (c *checker) kind(u *Upstream, path string) {
	h := u.Health
	if h.HTTP != nil && (!strings.HasPrefix(h.HTTP.Path, "/") || strings.ContainsAny(h.HTTP.Path, " #")) {
		c.fault(path+".http.path", "begin it with a slash, and write a space as %20", "%.80q is not a path", h.HTTP.Path)
		return
	}
	if h.HTTP != nil && strings.ContainsAny(h.HTTP.Host, " /") {
		c.fault(path+".http.host", "write it as in app.example.com", "%.80q is not a host", h.HTTP.Host)
		return
	}
	for key, e := range map[string]*ExpectCheck{".expect": h.Expect, ".udp": h.UDP} {
		if e != nil && max(len(e.Send), len(e.Expect)) > maxText {
			c.fault(path+key, fmt.Sprintf("send and expect %d bytes at most", maxText), "sends or expects too much")
			return
		}
	}
	if h.UDP != nil && u.ProxyProtocol.Version == SendV1 {
		c.fault(path+".udp", "check by tcp, or write proxy_protocol: v2", "a datagram can carry no PROXY header of version v1")
		return
	}
	check, _ := u.Check()
	if err := check.Validate(); err != nil {
		c.fault(path, "docs/configuration.md tells what it may be", "%s", err)
	}
}

// suggest is the remedy for a name that does not exist.
func suggest(name string, names []string) string {
	if best := nearest.Name(name, names); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	if len(names) == 0 {
		return "add it below upstreams:"
	}
	const most = 8
	if len(names) > most {
		return "add it below upstreams:"
	}
	if len(names) == 1 {
		return fmt.Sprintf("there is %q", names[0])
	}
	return "there are " + strings.Join(names, ", ")
}

// habits are words of HAProxy, nginx, Envoy and others for keys of ours.
var habits = map[string][]string{
	"frontend":        {"entrypoints"},
	"frontends":       {"entrypoints"},
	"listener":        {"entrypoints"},
	"listeners":       {"entrypoints"},
	"backend":         {"upstream", "upstreams"},
	"backends":        {"upstreams", "members"},
	"cluster":         {"upstream", "upstreams"},
	"clusters":        {"upstreams"},
	"pool":            {"upstream", "upstreams"},
	"pools":           {"upstreams"},
	"use_backend":     {"upstream"},
	"default_backend": {"upstream", "routes"},
	"proxy_pass":      {"upstream", "routes"},
	"to":              {"upstream"},
	"bind":            {"addr"},
	"listen":          {"addr", "entrypoints"},
	"address":         {"addr"},
	"server":          {"members", "address"},
	"servers":         {"members"},
	"targets":         {"members"},
	"endpoints":       {"members"},
	"src":             {"source"},
	"ip":              {"source"},
	"remote_addr":     {"source"},
	"acl":             {"match"},
	"sni":             {"host"},
	"server_name":     {"host"},
	"hosts":           {"host"},
	"policy":          {"balance"},
	"algorithm":       {"balance"},
	"check":           {"health"},
	"health_check":    {"health"},
	"max_fails":       {"eject"},
	"fail_timeout":    {"eject"},
	"retries":         {"connect"},
	"connect_timeout": {"connect"},
	"accept_proxy":    {"proxy_protocol"},
	"send_proxy":      {"proxy_protocol"},
}
