package plan

import "reflect"

// Equal says whether two plans are the same.
func (p Plan) Equal(q Plan) bool {
	return same(p.Entrypoints, q.Entrypoints) && same(p.Upstreams, q.Upstreams)
}

// Equal says whether two entrypoints are the same in everything.
func (e Entrypoint) Equal(f Entrypoint) bool { return same(e, f) }

// SameSocket says whether one entrypoint can go on with the socket of the other.
func (e Entrypoint) SameSocket(f Entrypoint) bool {
	return e.Protocol.Network() == f.Protocol.Network() && e.Addr == f.Addr
}

// Equal says whether two routes are the same in everything.
func (r Route) Equal(q Route) bool { return same(r, q) }

// Equal says whether two upstreams are the same in everything.
func (u Upstream) Equal(v Upstream) bool { return same(u, v) }

// SameButMembers says whether two upstreams differ at most in their members.
func (u Upstream) SameButMembers(v Upstream) bool {
	u.Members, v.Members = nil, nil
	return same(u, v)
}

// Equal says whether two members are the same in everything.
func (m Member) Equal(n Member) bool { return m == n }

// SamePlace says whether two members are one place, whatever its weight, limit and name.
func (m Member) SamePlace(n Member) bool { return m.Address == n.Address && m.Tunnel == n.Tunnel }

// same compares values that are plain all the way down.
func same[T any](a, b T) bool { return reflect.DeepEqual(a, b) }
