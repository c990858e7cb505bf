package plan

import (
	"strings"

	"culvert/internal/config/file"
	"culvert/internal/tunnel"
)

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

// line is where the value at path stands.
func (c *checker) line(path string) int {
	at, _ := c.doc.At(path)
	return at.Line
}

func (c *checker) check() {
	c.upstreams, c.used = map[string]int{}, map[string][]use{}
	for i, u := range c.plan.Upstreams {
		if c.name(file.Item("upstreams", i), u.Name) {
			c.unique("upstreams", i, u.Name, c.upstreams)
		}
	}
	names := map[string]int{}
	for i := range c.plan.Entrypoints {
		e := &c.plan.Entrypoints[i]
		path := file.Item("entrypoints", i)
		if e.Name == HTTPEntrypoint {
			c.fault(path+".name", "give another", "%q is the name of the entrypoint that --port opens", e.Name)
		} else if c.name(path, e.Name) {
			c.unique("entrypoints", i, e.Name, names)
		}
		c.entrypoint(e, path)
	}
	c.sockets()
	for i := range c.plan.Upstreams {
		c.upstream(i)
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

// unique checks that the name of the i-th item of a list is the first of its kind, and notes it.
func (c *checker) unique(list string, i int, name string, seen map[string]int) {
	if first, twice := seen[name]; twice {
		other := file.Item(list, first)
		c.fault(file.Item(list, i)+".name", "give another", "%q is the name of %s too, in line %d", name, other, c.line(other+".name"))
		return
	}
	seen[name] = i
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
