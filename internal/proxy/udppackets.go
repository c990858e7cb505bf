package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// packets sends each datagram to the next member. It keeps one connection for each member, for all visitors, and reads no
// answers.
type packets struct {
	udp *UDP

	mu     sync.Mutex
	places map[upstream.Member]*packetPlace
	closed bool
}

// packetPlace is the connection to one member.
type packetPlace struct {
	mu      sync.Mutex
	conn    upstream.Conn // nil while there is none
	dialing bool
	waiting []waitingPacket
	failed  time.Duration // when it last gave no connection, or refused
	used    time.Duration
}

// waitingPacket is a datagram that waits for a connection.
type waitingPacket struct {
	data   []byte
	source netip.Addr
	tried  []upstream.Member // that gave none: it waits for none of them again
}

// packetPause is how long a member that failed is passed over while another one is left.
const packetPause = time.Second

func newPackets(u *UDP) *packets {
	return &packets{udp: u, places: make(map[upstream.Member]*packetPlace)}
}

// send sends a visitor's datagram to the next member that takes it.
func (k *packets) send(source netip.Addr, p []byte) { k.pass(waitingPacket{data: p, source: source}) }

// pass sends a datagram to the next member that takes it. What may wait is copied.
func (k *packets) pass(p waitingPacket) {
	u := k.udp
	roll := rand.Uint32()
	for from := 0; ; {
		up, index, fallback, ok := (*u.route.Load())(p.source, roll, from)
		if !ok {
			break
		}
		if k.sendTo(up, p) {
			return
		}
		if !fallback {
			break
		}
		from = index + 1
	}
	u.count.drop(droppedNoMember, 1)
}

// sendTo gives a datagram to one of the upstream's members; first of those that did not fail lately.
func (k *packets) sendTo(up *upstream.Upstream, p waitingPacket) bool {
	c := up.Candidates(&upstream.Visit{Source: netip.AddrPortFrom(p.source, 0), Datagrams: true})
	for _, again := range []bool{false, true} {
		for i := range c.Len() {
			m := c.At(i)
			place := k.place(m)
			if place == nil || place.shy(k.udp.now()) != again {
				continue
			}
			if k.give(place, m, p) {
				return true
			}
		}
	}
	return false
}

func (k *packets) place(m upstream.Member) *packetPlace {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	p := k.places[m]
	if p == nil {
		k.sweep()
		p = &packetPlace{}
		k.places[m] = p
	}
	return p
}

// sweep closes what was not used for a while, such as what leads to members that are gone. The caller holds mu.
func (k *packets) sweep() {
	for m, p := range k.places {
		p.mu.Lock()
		if idle := k.udp.now()-p.used > k.udp.cfg.Idle && !p.dialing; idle {
			if p.conn != nil {
				_ = p.conn.Close()
				p.conn = nil
			}
			delete(k.places, m)
		}
		p.mu.Unlock()
	}
}

// shy says that the member failed lately.
func (p *packetPlace) shy(now time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed != 0 && now-p.failed < packetPause
}

// give gives a member a datagram, or says that it does not take it.
func (k *packets) give(place *packetPlace, m upstream.Member, p waitingPacket) bool {
	u := k.udp
	place.mu.Lock()
	defer place.mu.Unlock()
	place.used = u.now()
	if place.conn == nil {
		if slices.Contains(p.tried, m) || len(place.waiting) >= maxWaiting {
			return false
		}
		p.data = slices.Clone(p.data)
		place.waiting = append(place.waiting, p)
		if !place.dialing {
			place.dialing = true
			u.work.Go(func() { k.dial(place, m) })
		}
		return true
	}
	return k.write(place, p.data)
}

// write sends a datagram to a member that has a connection. The caller holds the place's mutex.
func (k *packets) write(place *packetPlace, p []byte) bool {
	u := k.udp
	switch _, err := place.conn.Write(p); {
	case err == nil:
		place.failed = 0
		u.count.relayed(In, len(p))
		return true
	case errors.Is(err, udp.ErrDropped):
		u.count.unsent(err)
		return true
	}
	place.failed = max(1, u.now())
	_ = place.conn.Close()
	place.conn = nil
	return false
}

// dial makes the connection that a place lacks, and sends what waits for it: to others, if there is none.
func (k *packets) dial(place *packetPlace, m upstream.Member) {
	u := k.udp
	ctx, cancel := context.WithTimeout(u.life, u.cfg.DialTimeout)
	defer cancel()
	d, err := m.Dial(ctx, &upstream.Visit{ID: newID(), Datagrams: true})
	place.mu.Lock()
	place.dialing = false
	waiting := place.waiting
	place.waiting = nil
	if err != nil {
		place.failed = max(1, u.now())
		place.mu.Unlock()
		if ctx.Err() != nil {
			u.count.drop(droppedNoMember, len(waiting))
			return
		}
		for _, p := range waiting {
			p.tried = append(p.tried, m)
			k.pass(p)
		}
		return
	}
	if u.life.Err() != nil { // close may have passed
		place.mu.Unlock()
		_ = d.Conn.Close()
		return
	}
	place.conn = d.Conn
	for i, p := range waiting {
		if !k.write(place, p.data) {
			u.count.drop(droppedNoMember, len(waiting)-i)
			break
		}
	}
	place.mu.Unlock()
}

// close closes all connections.
func (k *packets) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for _, p := range k.places {
		p.mu.Lock()
		if p.conn != nil {
			_ = p.conn.Close()
			p.conn = nil
		}
		p.mu.Unlock()
	}
}
