package dataplane

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"culvert/internal/config/plan"
	"culvert/internal/control"
	"culvert/internal/tunnel"
)

// MaxTunnels bounds the tunnels that clients can make the server remember.
const MaxTunnels = 1 << 16

var errFull = fmt.Errorf("the server has %d tunnels, which is its limit", MaxTunnels)

// publication is one client's offer of one tunnel, and the client's place in every upstream that it belongs to.
type publication struct {
	plane   *DataPlane
	offered control.Offered
	address string
	once    sync.Once
	divert  *divert // of an offer of that kind, while its route is there

	down error // why its service is not to be given visitors; nil if it is up. The mutex of the data plane guards it.
}

// Publish implements control.Publisher.
func (d *DataPlane) Publish(o control.Offered) (control.Publication, error) {
	d.awaitSockets()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if len(d.offers[o.Name]) == 0 && len(d.offers) >= MaxTunnels {
		return nil, errFull
	}
	p := &publication{plane: d, offered: o}
	if o.Offer.Down != "" {
		p.down = errors.New(o.Offer.Down)
	}
	d.offers[o.Name] = append(d.offers[o.Name], p)
	d.pool(o.Name.String())
	for pool, place := range d.poolsOf(o.Name) { // before visitors come
		pool.place(p, place)
	}
	var err error
	if p.address, err = d.expose(p); err != nil {
		d.retract(p)
		return nil, err
	}
	return p, nil
}

// expose gives visitors a way to what a client offers, those of HTTP with the next Settle, and says where it is.
func (d *DataPlane) expose(p *publication) (address string, err error) {
	name := p.offered.Name
	switch name.Kind() {
	case tunnel.TCP, tunnel.UDP:
		return d.exposePort(name)
	case tunnel.TLS:
		return d.exposeHost(name)
	case tunnel.HTTP:
		return d.web.expose(d, name)
	case tunnel.Private:
		return "the routes of the server that name it", nil
	case tunnel.Divert:
		return d.beginDivert(p)
	default:
		return "", fmt.Errorf("no visitor can reach %s", name)
	}
}

func (d *DataPlane) exposeHost(name tunnel.Name) (address string, err error) {
	e := d.entries[plan.TLSEntrypoint]
	if e == nil || e.plan.Protocol != plan.TLS {
		return "", fmt.Errorf("this server routes no TLS by name: start it with --tls-port, or with an entrypoint named %q of protocol tls", plan.TLSEntrypoint)
	}
	if err := e.rebuild(); err != nil {
		return "", err
	}
	return name.Host().String() + " on " + e.plan.Addr, e.update()
}

// exposePort opens the port of a tunnel, or finds that it is open.
func (d *DataPlane) exposePort(name tunnel.Name) (address string, err error) {
	e := d.entries[name.String()]
	if e == nil {
		if e, err = d.newPortEntry(name); err != nil {
			return "", err
		}
	}
	if err := e.update(); err != nil {
		if len(d.offers[name]) == 1 && len(e.diverts) == 0 { // nobody's but this client's
			e.remove("it could not be opened")
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return "", fmt.Errorf("port %d is already in use on the server; give another port (%w)", name.Port(), err)
		}
		return "", fmt.Errorf("port %d cannot be opened on the server: %w", name.Port(), err)
	}
	if e.socket == nil { // it opens when a client's service is up
		return e.plan.Addr, nil
	}
	return e.socket.Addr().String(), nil
}

func (d *DataPlane) newPortEntry(name tunnel.Name) (*entry, error) {
	port := name.Port()
	network := "tcp"
	if name.Kind() == tunnel.UDP {
		network = "udp"
	}
	if owner, ok := d.cfg.Reserved[port]; ok && network == "tcp" {
		return nil, fmt.Errorf("port %d is the server's own: %s", port, owner)
	}
	for _, e := range d.own {
		if e.plan.Protocol.Network() == network && portOf(e.plan.Addr) == port {
			return nil, fmt.Errorf("port %d is the server's own: its entrypoint %s; a route of that entrypoint can lead to upstream %s", port, e.plan.Name, name)
		}
	}
	e := &entry{plane: d, offered: name, plan: d.ports[network]}
	e.plan.Name, e.plan.Addr = name.String(), net.JoinHostPort(d.cfg.Addr, strconv.Itoa(int(port)))
	e.plan.Routes = []plan.Route{{Name: name.String(), Upstream: name.String()}}
	e.server = d.newServer(e)
	if err := e.rebuild(); err != nil {
		return nil, err
	}
	d.entries[e.plan.Name] = e
	return e, nil
}

func portOf(addr string) uint16 {
	_, text, _ := net.SplitHostPort(addr)
	port, _ := strconv.ParseUint(text, 10, 16)
	return uint16(port)
}

// Settle implements control.Publisher.
func (d *DataPlane) Settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.web.settle(d)
}

// Address implements control.Publication.
func (p *publication) Address() string { return p.address }

// Withdraw implements control.Publication.
func (p *publication) Withdraw() {
	p.once.Do(func() {
		p.plane.mu.Lock()
		defer p.plane.mu.Unlock()
		p.plane.retract(p)
	})
}

// Health implements control.HealthPublication.
func (p *publication) Health(up bool, cause error) {
	d := p.plane
	d.mu.Lock()
	defer d.mu.Unlock()
	p.down = cause
	for pool := range d.poolsOf(p.offered.Name) {
		pool.upstream.SetHealth(p.offered.Member, up, cause)
	}
}

// retract takes a client's offer back. With the last one, the way in closes in a while.
func (d *DataPlane) retract(p *publication) {
	name := p.offered.Name
	left := slices.DeleteFunc(slices.Clone(d.offers[name]), func(o *publication) bool { return o == p })
	d.offers[name] = left
	if len(left) == 0 {
		delete(d.offers, name)
	}
	for pool := range d.poolsOf(name) {
		pool.upstream.Remove(p.offered.Member)
	}
	if d.cfg.HTTP != nil {
		d.cfg.HTTP.Forget(p.offered.Member)
	}
	if d.closed {
		return
	}
	switch name.Kind() {
	case tunnel.Divert:
		if p.divert != nil {
			d.endDivert(p.divert)
		}
	case tunnel.HTTP:
		if len(left) == 0 {
			d.web.linger(d, name)
		}
	case tunnel.TLS:
		if e := d.entries[plan.TLSEntrypoint]; e != nil && len(left) == 0 {
			d.report(e.rebuild())
		}
	case tunnel.TCP, tunnel.UDP:
		if e := d.entries[name.String()]; e != nil && len(left) == 0 && !e.isOwn() {
			e.expireSoon()
		}
	}
	if pool := d.pools[name.String()]; pool != nil {
		d.sweep(pool)
	}
}

func (d *DataPlane) report(err error) {
	if err != nil {
		d.cfg.Log.Error("routes", "err", err)
	}
}
