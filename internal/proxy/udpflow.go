package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// What may wait while a flow gets its member: so many datagrams of a flow, and so many bytes of all flows together.
const (
	maxWaiting      = 64
	maxWaitingBytes = 4 << 20
)

type flowState uint8

const (
	placing flowState = iota // a member is being found; there may be an old one meanwhile
	open
	closed
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

// place is a flow's connection to a member.
type place struct {
	*upstream.Place
	upstream *upstream.Upstream
	route    int
	conn     upstream.Conn
	dead     bool        // it has failed; guarded by the flow
	answered atomic.Bool // the member has said something
}

func (p *place) close() {
	if p != nil {
		_ = p.conn.Close()
		p.Release()
	}
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
	f.write(at, p)
	return true
}

// write sends a datagram to a place that the flow has or had.
func (f *udpFlow) write(at *place, p []byte) {
	switch _, err := at.conn.Write(p); {
	case err == nil:
		f.udp.count.relayed(In, len(p))
		f.told.relayed(In, len(p))
	case errors.Is(err, udp.ErrDropped):
		f.udp.count.unsent(err)
	default:
		f.failed(at, err)
	}
}

// wait keeps a datagram until there is a member. The caller holds mu.
func (f *udpFlow) wait(p []byte) {
	u := f.udp
	if len(f.waiting) >= maxWaiting || u.waiting.Load()+int64(len(p)) > maxWaitingBytes {
		u.count.drop(droppedWaiting, 1)
		return
	}
	u.waiting.Add(int64(len(p)))
	f.waiting = append(f.waiting, append([]byte{}, p...))
}

// takeWaiting gives what waited. The caller holds mu.
func (f *udpFlow) takeWaiting() [][]byte {
	all := f.waiting
	f.waiting = nil
	n := 0
	for _, p := range all {
		n += len(p)
	}
	f.udp.waiting.Add(int64(-n))
	return all
}

// find has a member found for the flow, in a goroutine of its own, whose stack is not kept. why is "" for a new flow. The
// caller holds mu.
func (f *udpFlow) find(why string) {
	f.state = placing
	f.udp.seekers.seek(func() { f.settle(why) })
}

// settle finds a member for the flow and sends it what waits.
func (f *udpFlow) settle(why string) {
	f.mu.Lock()
	refused, old := f.refused, f.place
	f.mu.Unlock()
	next, err := f.choose(old, refused, why)
	f.mu.Lock()
	switch {
	case f.state == closed:
		f.mu.Unlock()
		if next != old {
			next.close()
		}
		return
	case next != nil && next == old && old.dead: // it failed meanwhile
		f.find(movedFailed)
		f.mu.Unlock()
		return
	case next == nil && old != nil && !old.dead && (why == movedLost || why == movedRerouted):
		f.lostTry = why == movedLost
		next = old // it may come back
	case next == nil:
		f.mu.Unlock()
		f.fail(err)
		return
	}
	f.moveTo(next, old, why)
	f.mu.Unlock()
	if next == old {
		return
	}
	old.close()
	f.attendTo(next)
}

// moveTo makes a place the flow's and sends it what waits: what another one did not answer first. The caller holds mu.
func (f *udpFlow) moveTo(next, old *place, why string) {
	f.place, f.state = next, open
	send := f.takeWaiting()
	if next != old {
		f.lostTry = false
		if why != "" {
			f.udp.count.move(why)
		}
		if t := f.told; t != nil {
			f.tell(t, next, why != "")
		}
		if why != "" {
			if p, ok := f.udp.held.take(f); ok {
				send = append([][]byte{p}, send...)
			}
		}
	}
	for i, p := range send {
		if i == len(send)-1 {
			f.udp.held.put(f, p)
		}
		f.writeHeld(next, p)
	}
}

// writeHeld is write for a caller who holds mu: a failure is heard of in another goroutine.
func (f *udpFlow) writeHeld(at *place, p []byte) {
	switch _, err := at.conn.Write(p); {
	case err == nil:
		f.udp.count.relayed(In, len(p))
		f.told.relayed(In, len(p))
	case errors.Is(err, udp.ErrDropped):
		f.udp.count.unsent(err)
	default:
		f.udp.work.Go(func() { f.failed(at, err) })
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

// choose finds a member by the present routes. It gives old if the flow is to stay where it is, and nil if nobody takes it.
func (f *udpFlow) choose(old *place, refused []upstream.Member, why string) (*place, error) {
	u, source := f.udp, f.visitor()
	ctx, cancel := context.WithTimeout(u.life, u.cfg.DialTimeout)
	defer cancel()
	v := &upstream.Visit{Source: source, Destination: f.destination(), Proxy: f.header, Datagrams: true, Poller: &u.poller}
	if f.told != nil {
		v.ID = f.told.record.ID
	} else {
		v.ID = newID()
	}
	err := error(&upstream.DialError{Reason: upstream.NoMember, Err: errors.New("no route fits")})
	for from := 0; ; {
		up, index, fallback, ok := (*u.route.Load())(source.Addr(), f.roll, from)
		if !ok {
			return nil, err
		}
		if why == movedRerouted && old != nil && up == old.upstream && !old.Lost() {
			return old, nil
		}
		v.Limit, v.Elsewhere = 0, false
		if fallback {
			v.Limit = fallbackLimit
			_, _, _, v.Elsewhere = (*u.route.Load())(source.Addr(), f.roll, index+1)
		}
		var next *place
		if next, err = dialFlow(ctx, up, v, refused); err == nil {
			next.route = index
			return next, nil
		}
		if !fallback {
			return nil, err
		}
		from = index + 1
	}
}

// fallbackLimit is what one member may take to answer while there are other routes.
const fallbackLimit = time.Second

// dialFlow makes a connection to one of an upstream's members, but for those that have refused. That a datagram's
// connection could be made says nothing of the service, so the member's success is not reported here.
func dialFlow(ctx context.Context, up *upstream.Upstream, v *upstream.Visit, refused []upstream.Member) (*place, error) {
	c := up.Candidates(v)
	err := error(&upstream.DialError{Reason: upstream.NoMember, Err: fmt.Errorf("upstream %s has no usable member", up.Name())})
	tried := 0
	for i := 0; i < c.Len(); i++ {
		if slices.Contains(refused, c.At(i)) {
			continue
		}
		claimed, at := c.Claim(i)
		if claimed == nil {
			break
		}
		if i = at; slices.Contains(refused, claimed.Member()) {
			claimed.Release()
			continue
		}
		d, failed := dialMember(ctx, claimed.Member(), c.Visit(v, tried))
		if failed == nil {
			return &place{Place: claimed, upstream: up, conn: d.Conn}, nil
		}
		e := upstream.Failure(claimed.Member(), failed)
		if e.Reason != upstream.Canceled {
			claimed.Report(e)
		}
		claimed.Release()
		err = e
		if tried++; ctx.Err() != nil || tried >= c.Tries() {
			break
		}
	}
	return nil, err
}

// dialMember asks one member, within the visit's limit.
func dialMember(ctx context.Context, m upstream.Member, v *upstream.Visit) (upstream.Dialed, error) {
	if v.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.Limit)
		defer cancel()
	}
	return m.Dial(ctx, v)
}

// attendTo has the answers of a new place sent to the visitor: by the poller, or in a goroutine of its own, whose stack stays
// small.
func (f *udpFlow) attendTo(at *place) {
	c, ok := at.conn.(upstream.Attended)
	if !ok {
		f.udp.work.Go(func() { f.attend(at) })
		return
	}
	err := c.Attend(func(p []byte, err error) {
		if err != nil {
			f.failed(at, err)
			return
		}
		f.answer(at, p)
	})
	if err != nil {
		f.failed(at, err)
	}
}

// source gives one datagram after the other and holds no memory while it waits.
type source interface {
	Next() ([]byte, error)
	Release()
}

func sourceOf(c upstream.Conn) source {
	if s, ok := c.(source); ok {
		return s
	}
	return &copies{conn: c}
}

func (f *udpFlow) attend(at *place) {
	s := sourceOf(at.conn)
	for {
		p, err := s.Next()
		if err != nil {
			s.Release()
			f.failed(at, err)
			return
		}
		f.answer(at, p)
	}
}

// copies is a source that needs a buffer all the time.
type copies struct {
	conn upstream.Conn
	buf  []byte
}

func (c *copies) Next() ([]byte, error) {
	if c.buf == nil {
		c.buf = make([]byte, udp.MaxDatagram)
	}
	n, err := c.conn.Read(c.buf)
	return c.buf[:n], err
}

func (c *copies) Release() {}

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

// failed takes note that a place is of no use any more. If it is the flow's, the flow moves on at once; when the other end
// has ended it in order, the flow has ended.
func (f *udpFlow) failed(at *place, err error) {
	f.mu.Lock()
	if f.state == closed || f.place != at {
		f.mu.Unlock()
		return
	}
	if errors.Is(err, io.EOF) {
		f.mu.Unlock()
		f.close("ended", nil)
		return
	}
	if at.dead = true; f.state == placing { // it is being replaced already
		f.mu.Unlock()
		return
	}
	why := movedFailed
	var e *upstream.DialError
	if errors.As(err, &e) {
		at.Report(e)
		if e.Reason == upstream.Refused {
			why = movedRefused
		}
	}
	f.refused = append(f.refused, at.Member())
	f.find(why)
	f.mu.Unlock()
}

// reroute has the flow go by the present routes.
func (f *udpFlow) reroute() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == open {
		f.find(movedRerouted)
	}
}

// recheck moves the flow if its member is lost.
func (f *udpFlow) recheck() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lostTry = false; f.state == open && f.place.Lost() {
		f.find(movedLost)
	}
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
