package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/internal/admin"
	"culvert/internal/balancer"
	"culvert/internal/hostname"
	"culvert/internal/proxy"
	"culvert/internal/upstream"
	"culvert/internal/upstream/health"
)

// State implements admin.DataPlane.
func (d *DataPlane) State() admin.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	var s admin.State
	for _, e := range d.own {
		s.Entrypoints = append(s.Entrypoints, e.state())
	}
	for _, name := range slices.Sorted(maps.Keys(d.entries)) {
		if e := d.entries[name]; !e.isOwn() {
			s.Entrypoints = append(s.Entrypoints, e.state())
		}
	}
	for _, p := range d.filePools {
		s.Upstreams = append(s.Upstreams, p.state())
	}
	for _, name := range slices.Sorted(maps.Keys(d.pools)) {
		if p := d.pools[name]; !slices.Contains(d.filePools, p) {
			s.Upstreams = append(s.Upstreams, p.state())
		}
	}
	return s
}

func (e *entry) state() admin.Entrypoint {
	s := admin.Entrypoint{Name: e.plan.Name, Protocol: string(e.plan.Protocol), Address: e.plan.Addr, Listening: e.socket != nil, Reason: e.closedBecause()}
	if e.socket != nil {
		s.Address = e.socket.Addr().String()
	}
	s.Open, s.Total = e.server.carried()
	for _, r := range e.routes() {
		shown := admin.Route{
			Name: r.Name, Percent: r.Percent, Upstream: r.Upstream, OnDown: "fail", Total: e.total(r.Name).Load(),
			Sources: texts(r.Sources, netip.Prefix.String), Hosts: texts(r.Hosts, hostname.Pattern.String),
		}
		if r.Fallback {
			shown.OnDown = "fallback"
		}
		if id, ok := divertID(r.Name); ok {
			shown.Divert = id
		}
		s.Routes = append(s.Routes, shown)
	}
	return s
}

// closedBecause says why the socket is closed, "" if it is open.
func (e *entry) closedBecause() string {
	switch {
	case e.socket != nil:
		return ""
	case e.closes() && !e.isUsable():
		return "no member is usable"
	case e.failed != nil:
		return e.failed.Error()
	default:
		return "it is about to open"
	}
}

func texts[T any](list []T, text func(T) string) (out []string) {
	for _, v := range list {
		out = append(out, text(v))
	}
	return out
}

func (p *pool) state() admin.Upstream {
	s := admin.Upstream{Name: p.name, Balance: string(balancer.RoundRobin), Usable: p.upstream.Usable(), Queued: p.upstream.Waiting()}
	if p.file != nil {
		s.Balance = p.file.Balance
	}
	checkers := p.checkers()
	for _, at := range p.upstream.Places() {
		m := admin.Member{
			Name: at.Name, State: stateOf(at), EjectedUntil: at.EjectedUntil, LastError: at.LastError, LastErrorAt: at.LastErrorAt,
			Weight: at.Weight, Backup: at.Backup, MaxConns: at.MaxConns, Open: at.Open, Total: at.Total, Failed: at.Failed,
		}
		if checker := checkers[at.Member]; checker != nil {
			st := checker.Status()
			if m.State == admin.MemberUp || m.State == admin.MemberDown { // the check knows of no other
				m.Since = st.Changed
			}
			m.Check = checkOf(st)
			if st.LastErrorAt.After(m.LastErrorAt) {
				m.LastError, m.LastErrorAt = st.LastError, st.LastErrorAt
			}
		}
		s.Members = append(s.Members, m)
	}
	return s
}

func checkOf(st health.Status) admin.CheckState {
	switch {
	case !st.Known:
		return ""
	case st.Up:
		return admin.CheckUp
	default:
		return admin.CheckDown
	}
}

func stateOf(at upstream.PlaceState) admin.MemberState {
	switch {
	case at.Draining || at.Weight == 0:
		return admin.MemberDraining
	case at.Down:
		return admin.MemberDown
	case !at.Usable:
		return admin.MemberAway
	case at.EjectedUntil.After(time.Now()):
		return admin.MemberEjected
	case at.Suspect:
		return admin.MemberSuspect
	default:
		return admin.MemberUp
	}
}

// ChangeMember implements admin.DataPlane.
func (d *DataPlane) ChangeMember(name, member string, change admin.MemberChange) error {
	d.mu.Lock()
	p := d.pools[name]
	names := slices.Sorted(maps.Keys(d.pools))
	d.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%w: no upstream %.80q; there is %s", admin.ErrNotFound, name, listed(names))
	}
	member = p.memberCalled(member)
	var errs []error
	if change.Drain != nil {
		errs = append(errs, p.upstream.SetDrain(member, *change.Drain))
	}
	if change.Weight != nil {
		errs = append(errs, p.upstream.SetWeight(member, *change.Weight))
	}
	err := cmp.Or(errs...)
	if errors.As(err, new(upstream.UnknownMember)) {
		return fmt.Errorf("%w: %w", admin.ErrNotFound, err)
	}
	if err == nil && change.Close {
		d.endConnections(func(o proxy.Open) bool { return o.Upstream == name && o.Member == member })
	}
	return err
}

// memberCalled is the name of the one member that an operator may mean, else what was typed.
func (p *pool) memberCalled(typed string) string {
	var found []string
	for _, m := range p.upstream.Members() {
		switch name := m.Name(); {
		case name == typed:
			return typed
		case admin.Called(name, typed):
			found = append(found, name)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return typed
}

// listed is for one line of a message: a long list is cut.
func listed(names []string) string {
	const most = 10
	switch n := len(names); {
	case n == 0:
		return "none"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ")
}

// Ready says why a service takes no visitors: an upstream or tunnel that has no usable member, or an entrypoint none of whose
// routes leads to one; nil if it does. The empty name is the whole of it: every entrypoint that can be open is.
func (d *DataPlane) Ready(service string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch p, e := d.pools[service], d.entries[service]; {
	case d.closed:
		return errClosed
	case service == "":
		return d.bound()
	case e != nil && !e.isUsable(), e == nil && p != nil && !p.upstream.Usable():
		return fmt.Errorf("%s has no usable member", service)
	case e == nil && p == nil:
		return fmt.Errorf("there is no upstream, tunnel or entrypoint %.80q", service)
	}
	return nil
}

// bound says whether the entrypoints of the configuration that are to be open are.
func (d *DataPlane) bound() error {
	for _, e := range d.own {
		if e.socket == nil && (e.isUsable() || !e.closes()) {
			return fmt.Errorf("entrypoint %s is not open", e.plan.Name)
		}
	}
	return nil
}
