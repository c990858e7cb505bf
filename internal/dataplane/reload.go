package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"culvert/internal/config/plan"
)

// Apply makes the data plane what a plan says: all of it, or nothing and an error, and then everything is as it was.
// Entrypoints whose address stays keep their sockets, members keep what is known of them, and what is open goes on.
func (d *DataPlane) Apply(p plan.Plan) error {
	d.awaitSockets()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	kept := d.kept(p)
	fresh, err := d.openFresh(p, kept)
	if err != nil {
		return err
	}
	d.setUpstreams(p)
	for _, e := range d.own {
		delete(d.entries, e.plan.Name)
		if kept[e.address()] != e {
			e.endDiverts()
			e.remove("the configuration has it no longer")
		} else if !slices.ContainsFunc(p.Entrypoints, func(want plan.Entrypoint) bool { return want.Name == e.plan.Name }) {
			e.forgetCounts() // it has another name now
		}
	}
	d.own = nil
	for _, want := range p.Entrypoints {
		e := cmp.Or(kept[addressOfEntry(want)], fresh[addressOfEntry(want)])
		e.plan = want
		d.entries[want.Name] = e
		d.own = append(d.own, e)
		d.report(e.rebuild()) // the plan was checked
		if fresh[e.address()] == e && e.closes() && !e.isUsable() {
			e.closeSocket("it opens with its first usable member")
		}
		e.reopen()
	}
	d.dropUpstreams(p) // now that no route leads there
	for _, pool := range slices.Collect(maps.Values(d.pools)) {
		d.sweep(pool)
	}
	return nil
}

// socketAddress is what makes two entrypoints the same: they share a socket.
type socketAddress struct{ network, addr string }

func (e *entry) address() socketAddress { return addressOfEntry(e.plan) }

func addressOfEntry(p plan.Entrypoint) socketAddress {
	return socketAddress{p.Protocol.Network(), p.Addr}
}

// kept are the entrypoints whose sockets the plan goes on with.
func (d *DataPlane) kept(p plan.Plan) map[socketAddress]*entry {
	kept := make(map[socketAddress]*entry)
	for _, e := range d.own {
		if slices.ContainsFunc(p.Entrypoints, e.plan.SameSocket) {
			kept[e.address()] = e
		}
	}
	return kept
}

// ListenError is an entrypoint that cannot be opened.
type ListenError struct {
	Entrypoint    string
	Network, Addr string
	Err           error
}

func (e *ListenError) Error() string { return "entrypoint " + e.Entrypoint + ": " + e.Err.Error() }
func (e *ListenError) Unwrap() error { return e.Err }

// openFresh opens the sockets that are new, to find out whether they can be: the one thing of a change that may fail. One whose
// port an entrypoint has that goes opens after that one has closed.
func (d *DataPlane) openFresh(p plan.Plan, kept map[socketAddress]*entry) (map[socketAddress]*entry, error) {
	fresh := make(map[socketAddress]*entry)
	var errs []error
	for _, want := range p.Entrypoints {
		if kept[addressOfEntry(want)] != nil {
			continue
		}
		if other := d.entries[want.Name]; other != nil && !other.isOwn() {
			errs = append(errs, fmt.Errorf("entrypoint %s: a client's port has this name", want.Name))
			continue
		}
		e := &entry{plane: d, plan: want}
		e.server = d.newServer(e)
		if err := e.open(); err != nil && !d.goes(want, kept) {
			errs = append(errs, &ListenError{want.Name, want.Protocol.Network(), want.Addr, err})
			continue
		}
		fresh[e.address()] = e
	}
	if len(errs) == 0 {
		return fresh, nil
	}
	for _, e := range fresh {
		e.closeSocket("the configuration was refused")
	}
	return nil, errors.Join(errs...)
}

// goes says whether an entrypoint that goes has the port of one that comes.
func (d *DataPlane) goes(want plan.Entrypoint, kept map[socketAddress]*entry) bool {
	for _, e := range d.own {
		if kept[e.address()] != e && e.plan.Protocol.Network() == want.Protocol.Network() && portOf(e.plan.Addr) == portOf(want.Addr) {
			return true
		}
	}
	return false
}

// endDiverts has control end the diverts of an entrypoint that goes.
func (e *entry) endDiverts() {
	for _, v := range e.diverts {
		end := v.owner.offered.End
		e.plane.serving.Go(func() { end("the entrypoint is gone") }) // it withdraws, which waits for this change
	}
}

func (d *DataPlane) setUpstreams(p plan.Plan) {
	for i := range p.Upstreams {
		u := &p.Upstreams[i]
		pool := d.pool(u.Name)
		if pool.file == nil || !pool.file.Equal(*u) {
			pool.set(u)
		}
	}
}

// dropUpstreams ends those that the file has no longer.
func (d *DataPlane) dropUpstreams(p plan.Plan) {
	for _, pool := range d.filePools {
		if slices.ContainsFunc(p.Upstreams, func(u plan.Upstream) bool { return u.Name == pool.name }) {
			continue
		}
		if len(pool.entries) == 0 && !pool.isTunnel() {
			pool.retire()
			continue
		}
		pool.set(nil)
	}
	d.filePools = d.filePools[:0]
	for i := range p.Upstreams {
		d.filePools = append(d.filePools, d.pools[p.Upstreams[i].Name])
	}
}
