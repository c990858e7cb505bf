package mux

import "sync"

// sendHalf is the direction of a stream that this side sends. acked <= sent <= queuedTo. It is guarded by the session's
// mutex.
type sendHalf struct {
	kept     chunkQueue // from acked, or a little before, to queuedTo
	next     *chunk     // has the byte at sent; nil if sent is queuedTo, or sent is to be looked up
	acked    uint64     // the peer has consumed, or will never ask again for, all below
	sent     uint64
	queuedTo uint64
	limit    uint64 // the peer takes all below
	allowed  int64  // how much may be sent and not acked: what this side is ready to keep; 0 means firstWindow
	grownAt  uint64 // acked when allowed last grew
	charged  int64  // to the budget, for what is kept
	fin      bool   // queuedTo is the end
	finSent  bool
	finOnce  bool // the FIN was sent before, be it over a link that was lost
	finAcked bool
	dropped  bool // nothing is kept or sent any more
	room     sync.Cond
	deadline deadline
}

// unsentLimit is how much a stream's writer may be ahead of its link.
const unsentLimit = chunkLarge

// firstWindow is what a stream's peer may send at first, and what this side keeps for its peer at first.
const firstWindow = 256 << 10

// leastWindow is what every stream is granted however short memory is.
const leastWindow = 32 << 10

// most is up to where may be sent: what the peer takes, and what this side is ready to keep for it.
func (h *sendHalf) most(b *Budget) uint64 {
	keep := uint64(max(h.allowed, firstWindow))
	if b.full() {
		keep = leastWindow
	}
	return min(h.limit, h.acked+keep)
}

// charge counts what is kept in the budget.
func (h *sendHalf) charge(b *Budget) {
	if d := h.kept.held - h.charged; d != 0 {
		b.keep(d)
		h.charged = h.kept.held
	}
}

// sendable is how many bytes may go now.
func (h *sendHalf) sendable(b *Budget) int {
	if h.dropped {
		return 0
	}
	to := min(h.queuedTo, h.most(b))
	if to <= h.sent {
		return 0
	}
	return int(to - h.sent)
}

func (h *sendHalf) finDue() bool {
	return h.fin && !h.finSent && !h.dropped && h.sent == h.queuedTo
}

// full says that a writer has to wait.
func (h *sendHalf) full(b *Budget) bool {
	ahead := h.queuedTo - h.sent
	return ahead >= unsentLimit || ahead > 0 && b.full()
}

// copySent appends the next n unsent bytes to b.
func (h *sendHalf) copySent(b []byte, n int) []byte {
	if h.next == nil {
		h.next = h.kept.head
	}
	for n > 0 {
		c := h.next
		if c.end() <= h.sent {
			h.next = c.next
			continue
		}
		p := c.buf[h.sent-c.off:]
		p = p[:min(n, len(p))]
		b = append(b, p...)
		h.sent += uint64(len(p))
		n -= len(p)
	}
	return b
}

// queue copies p to the end.
func (h *sendHalf) queue(p []byte) {
	h.kept.append(h.queuedTo, p)
	h.queuedTo += uint64(len(p))
}

// take takes a chunk over as the end.
func (h *sendHalf) take(c *chunk) {
	c.off = h.queuedTo
	h.queuedTo += uint64(len(c.buf))
	h.kept.push(c)
}

// ack takes the peer's word that it has all below off, where one beyond the end is the FIN. It says whether anything
// is new.
func (h *sendHalf) ack(off uint64) bool {
	if h.finOnce && off == h.queuedTo+1 {
		h.finSent, h.finAcked = true, true
		h.sent, h.next = h.queuedTo, nil
		off--
	}
	if off < h.acked {
		return false
	}
	h.acked = off
	h.release()
	return true
}

// release gives back what is acked.
func (h *sendHalf) release() {
	if h.next != nil && h.next.end() <= h.acked {
		h.next = nil // copySent begins at the head
	}
	h.kept.releaseTo(h.acked)
}

// rewind makes the stream send again from off.
func (h *sendHalf) rewind(off uint64) (again int64) {
	again = int64(h.sent - off)
	h.sent, h.next = off, nil
	if !h.finAcked {
		h.finSent = false
	}
	return again
}

// drop forgets everything: nobody will ask for it.
func (h *sendHalf) drop() {
	h.dropped = true
	h.next = nil
	h.kept.clear()
	h.room.Broadcast()
}

// over says that the peer has everything and the end.
func (h *sendHalf) over() bool { return h.finAcked }

// grow lets more be sent before it is acked, for a peer whose acknowledgements show that it takes it.
func (h *sendHalf) grow(b *Budget) {
	if h.dropped || h.limit <= h.acked+uint64(max(h.allowed, firstWindow)) || h.acked < h.grownAt+uint64(max(h.allowed, firstWindow)) {
		return
	}
	now := max(h.allowed, firstWindow)
	if now < maxWindow && !b.full() {
		h.allowed = 2 * now
		h.grownAt = h.acked
	}
}

// settle returns what charge counted, once all is dropped.
func (h *sendHalf) settle(b *Budget) {
	h.charge(b)
	h.allowed = 0
}
