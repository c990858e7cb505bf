package proxy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"culvert/internal/proxyproto"
	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// udpFlow is what one visitor sends to one entrypoint, and one member's connection for it.
type udpFlow struct {
	udp    *UDP
	entry  *udpEntry
	header *proxyproto.Header // of the flow's first datagram; nil if it had none
	roll   uint32

	slot  int         // of the datagram that is held; guarded by the holding
	holds atomic.Bool // it is not answered

	mu      sync.Mutex
	state   flowState
	place   *place   // nil until there is one
	lostTry bool     // no other member took the flow lately
	waiting [][]byte // datagrams, while placing
	refused []upstream.Member
	told    *udpTold // for the hooks; nil without
}

type flowState uint8

const (
	placing flowState = iota // a member is being found; there may be an old one meanwhile
	open
	closed
)

// init begins the flow with its first datagram.
func (f *udpFlow) init(u *UDP, e *udpEntry, header *proxyproto.Header, first []byte) {
	f.mu.Lock() // who goes through all flows may be here already
	defer f.mu.Unlock()
	f.udp, f.entry, f.header, f.roll = u, e, header, rand.Uint32()
	if u.cfg.Opened != nil || u.cfg.Closed != nil {
		key := e.Key()
		f.told = &udpTold{record: UDPFlow{ID: newID(), Source: key.source(), Destination: f.destination(), Opened: time.Now()}}
		if key.visitor.IsValid() {
			f.told.record.Via = key.peer
		}
	}
	f.waiting = [][]byte{slices.Clone(first)}
	u.waiting.Add(int64(len(first)))
	f.find("")
}

// visitor is the flow's source.
func (f *udpFlow) visitor() netip.AddrPort {
	return f.entry.Key().source()
}

// destination is where the visitor sent to.
func (f *udpFlow) destination() netip.AddrPort {
	if f.header != nil {
		return f.header.Destination
	}
	local := f.udp.socket.Addr().(*net.UDPAddr).AddrPort()
	if at := f.entry.Key().local; at.IsValid() {
		return netip.AddrPortFrom(at, local.Port())
	}
	return netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
}

// send sends a datagram to the flow's member. It says whether the flow is there at all.
func (f *udpFlow) send(p []byte) bool {
	f.mu.Lock()
	switch {
	case f.udp == nil || f.state == closed:
		f.mu.Unlock()
		return false
	case f.state == placing:
		f.wait(p)
		f.mu.Unlock()
		return true
	case !f.lostTry && f.place.Lost():
		f.wait(p)
		f.find(movedLost)
		f.mu.Unlock()
		return true
	}
	at := f.place
	f.mu.Unlock()
	f.udp.held.put(f, p)
	if err := f.write(at, p); err != nil {
		f.failed(at, err)
	}
	return true
}

// write sends a datagram to a place that the flow has or had, or drops it. An error is the place's end.
func (f *udpFlow) write(at *place, p []byte) error {
	switch _, err := at.conn.Write(p); {
	case err == nil:
		f.udp.count.relayed(In, len(p))
		f.told.relayed(In, len(p))
	case errors.Is(err, udp.ErrDropped):
		f.udp.count.unsent(err)
	default:
		return err
	}
	return nil
}

// answer sends the visitor what its member said. Whoever was silent for longer than a flow lives gets nothing.
func (f *udpFlow) answer(at *place, p []byte) {
	if !at.answered.Load() && !at.answered.Swap(true) {
		at.Report(nil)
	}
	u, e, now := f.udp, f.entry, f.udp.now()
	if now-e.Touched() > u.cfg.Idle {
		u.count.drop(droppedLate, 1)
		return
	}
	u.flows.Answered(e, now)
	if f.holds.Load() {
		f.answered()
	}
	key := e.Key()
	if err := u.socket.Send(p, key.peer, key.local); err != nil {
		return // the visitor's network does not take it, or the socket is closed: so it is with datagrams
	}
	u.count.relayed(Out, len(p))
	f.told.relayed(Out, len(p))
}

// answered lets go of the datagram that is held, and of the grudges.
func (f *udpFlow) answered() {
	f.holds.Store(false)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = nil
}

// fail ends a flow that nobody takes.
func (f *udpFlow) fail(err error) {
	u := f.udp
	reason := upstream.ReasonOf(err)
	if level := slog.LevelDebug; u.cfg.Log.Enabled(context.Background(), level) {
		u.cfg.Log.Log(context.Background(), level, "no member for the flow",
			"entrypoint", u.cfg.Label, "source", f.visitor(), "reason", reason, "err", err)
	}
	f.close("no_member", err)
}

// close ends the flow. A datagram of its visitor that comes later begins another one.
func (f *udpFlow) close(why string, err error) {
	u := f.udp
	u.flows.Remove(f.entry) // first: from here on the visitor's datagrams begin a new flow
	f.mu.Lock()
	if f.state == closed {
		f.mu.Unlock()
		return
	}
	f.state = closed
	at := f.place
	f.place = nil
	if n := len(f.takeWaiting()); n > 0 {
		u.count.drop(droppedNoMember, n)
	}
	t := f.told
	f.mu.Unlock()
	at.close()
	u.held.forget(f)
	u.count.ended()
	if t != nil && t.opened && u.cfg.Closed != nil {
		r := t.record
		for _, d := range []Direction{In, Out} {
			r.Datagrams[d], r.Bytes[d] = t.datagrams[d].Load(), t.bytes[d].Load()
		}
		r.Reason, r.Err = why, err
		u.cfg.Closed(r)
	}
	u.drained()
}
