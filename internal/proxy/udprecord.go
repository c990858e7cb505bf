package proxy

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// UDPFlow tells of a flow.
type UDPFlow struct {
	ID          string
	Source      netip.AddrPort // the visitor
	Destination netip.AddrPort // where it sent to
	Via         netip.AddrPort // the balancer in front, if it named the visitor
	Route       int            // the number of the route
	Upstream    string
	Member      string
	Opened      time.Time

	// At its end:
	Datagrams, Bytes [2]uint64 // by Direction
	Moves            int       // how often it went on at another member
	Reason           string    // "idle", "replaced", "ended", "no_member", "end"
	Err              error     // why it failed
}

// udpTold is what a flow's record is made of.
type udpTold struct {
	record    UDPFlow
	datagrams [2]atomic.Uint64
	bytes     [2]atomic.Uint64
	opened    bool
}

func (t *udpTold) relayed(d Direction, n int) {
	if t != nil {
		t.datagrams[d].Add(1)
		t.bytes[d].Add(uint64(n))
	}
}

// tell fills in the flow's record. The caller holds mu.
func (f *udpFlow) tell(t *udpTold, at *place, moved bool) {
	t.record.Route, t.record.Upstream, t.record.Member = at.route, at.upstream.Name(), at.Member().Name()
	if moved {
		t.record.Moves++
	}
	if !t.opened && f.udp.cfg.Opened != nil {
		f.udp.cfg.Opened(t.record)
	}
	t.opened = true
}
