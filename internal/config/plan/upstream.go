package plan

import (
	"fmt"
	"slices"
	"strings"

	"culvert/internal/config/file"
)

// upstream checks and completes the i-th upstream.
func (c *checker) upstream(i int) {
	u, path := &c.plan.Upstreams[i], file.Item("upstreams", i)
	c.members(u, path)
	uses := c.used[u.Name]
	if len(uses) == 0 && c.upstreams[u.Name] == i {
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
	if h.HTTP != nil && h.HTTP.Method == "HEAD" && h.HTTP.Expect != "" {
		c.fault(path+".http.expect", "write method: GET", "the answer to HEAD has no body that could hold it")
		return
	}
	if h.UDP != nil && h.TLS != nil {
		c.fault(path+".tls", "leave it out", "a datagram is sent as it is")
		return
	}
	check, _ := u.Check()
	if err := check.Validate(); err != nil {
		c.fault(path, "docs/configuration.md tells what it may be", "%s", err)
	}
}
