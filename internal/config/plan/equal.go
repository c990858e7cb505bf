package plan

import "reflect"

// Equal says whether two entrypoints are the same in everything.
func (e Entrypoint) Equal(f Entrypoint) bool { return reflect.DeepEqual(e, f) }

// SameSocket says whether one entrypoint can go on with the socket of the other.
func (e Entrypoint) SameSocket(f Entrypoint) bool {
	return e.Protocol.Network() == f.Protocol.Network() && e.Addr == f.Addr
}

// Equal says whether two upstreams are the same in everything.
func (u Upstream) Equal(v Upstream) bool { return reflect.DeepEqual(u, v) }

// SameDial says whether two states of an upstream connect to their members and check them in the same way, whoever those are.
func (u Upstream) SameDial(v Upstream) bool {
	u.Members, v.Members = nil, nil
	u.Balance, u.Queue, u.SlowStart, u.Eject, u.CloseOnDown, u.Connect.Retries = v.Balance, v.Queue, v.SlowStart, v.Eject, v.CloseOnDown, v.Connect.Retries
	return u.Equal(v)
}
