package upstream

import (
	"slices"
	"sync/atomic"
)

// Place is the account of one connection or request at a member. Whoever has it releases it when that is over.
type Place struct {
	upstream  *Upstream
	seat      *seat
	elsewhere bool // as its visit has it
	released  atomic.Bool
}

// Member is whose place it is.
func (p *Place) Member() Member { return p.seat.member }

// Release gives the place back, and to who waits for it. It is to be called once; later calls do nothing.
func (p *Place) Release() {
	if p == nil || p.released.Swap(true) {
		return
	}
	p.seat.open.Add(-1)
	p.upstream.wake()
}

// Report tells what came of the attempt to use the place: nil if the member gave a connection. Dial does it by itself.
func (p *Place) Report(err *DialError) {
	if err == nil {
		p.upstream.succeeded(p.seat)
		return
	}
	p.upstream.failedAt(p.seat, err, p.elsewhere)
}

// Lost says that the member serves nobody at present, whatever is open included: it was removed, is down by its check or
// out of reach. A member that is drained or ejected is not lost.
func (p *Place) Lost() bool {
	now := p.upstream.set.Load()
	i := slices.Index(now.members, p.seat.member)
	if i < 0 {
		return true
	}
	s := now.seats[i] // it may have been removed and added again
	return s.now.Load().down || s.breakable != nil && !s.breakable.Usable()
}
