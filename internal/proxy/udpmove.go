package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"culvert/internal/upstream"
)

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

// find has a member found for the flow by one of the seekers. why is "" for a new flow. The caller holds mu.
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
		if err := f.write(next, p); err != nil {
			f.udp.work.Go(func() { f.failed(next, err) }) // which needs mu
		}
	}
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
			below, _, _, ok := (*u.route.Load())(source.Addr(), f.roll, index+1)
			v.Elsewhere = ok && below.Usable()
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
