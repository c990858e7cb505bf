package proxy

import (
	"net/netip"
	"time"

	"culvert/internal/proxyproto"
	"culvert/internal/udp"
)

// udpKey is what makes a flow. The address of this machine that was sent to is a part of it: the answers leave from there.
type udpKey struct {
	peer    netip.AddrPort // who sends to us, and gets the answers
	visitor netip.AddrPort // whom a PROXY header names; else the zero AddrPort
	local   netip.Addr
}

// source is the visitor.
func (k udpKey) source() netip.AddrPort {
	if k.visitor.IsValid() {
		return k.visitor
	}
	return k.peer
}

type udpEntry = udp.Entry[udpKey, udpFlow]

// begin begins a flow with its first datagram.
func (u *UDP) begin(key udpKey, header *proxyproto.Header, data []byte, now time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.draining || u.over {
		u.count.drop(droppedDraining, 1)
		return
	}
	added, why := u.flows.Add(key, key.source().Addr(), now)
	if why != "" {
		u.crowding.refused(u, why, now)
		return
	}
	if added.First {
		u.sweeper.Reset(u.flows.Tick())
	}
	if over := added.Replaced; over != nil {
		u.count.replace()
		u.work.Go(func() { over.Flow.close("replaced", nil) }) // a tunnel may have to be told
	}
	u.count.begun()
	added.Entry.Flow.init(u, added.Entry, header, data)
}

// sweep ends the flows that are idle, and looks after the others.
func (u *UDP) sweep() {
	u.mu.Lock()
	if u.over {
		u.mu.Unlock()
		return
	}
	expired, left := u.flows.Expire(u.now())
	pause := u.flows.Tick()
	if u.draining {
		expired = append(expired, u.finished()...)
		pause = min(pause, u.cfg.DrainIdle/4)
	}
	if left {
		u.sweeper.Reset(pause)
	}
	u.work.Add(1)
	u.mu.Unlock()
	defer u.work.Done()
	for _, e := range expired {
		e.Flow.close("idle", nil)
	}
	u.Recheck()
	u.drained()
}

// finished takes out the flows that count as finished while the process goes down.
func (u *UDP) finished() (list []*udpEntry) {
	for _, e := range u.flows.All() {
		if u.now()-e.Touched() >= u.cfg.DrainIdle && u.flows.Remove(e) {
			list = append(list, e)
		}
	}
	return list
}

// Flows is the number of flows.
func (u *UDP) Flows() int { return u.flows.Len() }

// Move has the flows of the visitors that match go by the present routes, each as soon as its new member has taken it. One
// that the routes lead to the upstream that it has, or nowhere, stays.
func (u *UDP) Move(match func(visitor netip.AddrPort) bool) {
	for _, e := range u.flows.All() {
		if match(e.Key().source()) {
			e.Flow.reroute()
		}
	}
}

// Recheck has the flows whose member is down or gone go on at another one. Each also finds out by itself, with its
// visitor's next datagram, or within a 32nd of the idle timeout.
func (u *UDP) Recheck() {
	for _, e := range u.flows.All() {
		e.Flow.recheck()
	}
}

// NewFlowRoom makes the room that the flows of all entrypoints share: half of the process's descriptors, of which a flow to
// a fixed member takes one. The other half is for connections, which no flood of datagrams can take away.
func NewFlowRoom() *udp.Room { return udp.NewRoom(mostDescriptors() / 2) }

// crowding tells the log that flows find no place: once a minute, however many there are.
type crowding struct {
	dropped int           // datagrams that nobody has heard of
	until   time.Duration // nothing is said before
}

func (c *crowding) refused(u *UDP, why udp.Refusal, now time.Duration) {
	u.count.drop(string(why), 1)
	if c.dropped++; now < c.until {
		return
	}
	setting := "max_flows"
	if why == udp.PerSource {
		setting = "max_flows_per_source"
	}
	u.cfg.Log.Warn("new flows find no place, their datagrams are dropped", "entrypoint", u.cfg.Label, "flows", u.flows.Len(),
		"dropped", c.dropped, "reason", string(why), "raise", setting)
	c.dropped, c.until = 0, now+time.Minute
}
