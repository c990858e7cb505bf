package proxy

import "sync"

// What may wait while a flow gets its member: so many datagrams of a flow, and so many bytes of all flows together.
const (
	maxWaiting      = 64
	maxWaitingBytes = 4 << 20
)

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

// A datagram that was not answered is held, to be sent again to another member if its own refuses it: a copy of the last
// one of each flow. Of all flows together the last ones are held; who sends a lot of strangers' datagrams costs no more.
const (
	maxHeldDatagrams = 1024
	maxHeldSize      = 2048 // bytes of each; a longer one is not held
)

// holding is a ring of held datagrams. The zero value holds nothing.
type holding struct {
	mu    sync.Mutex
	slots []slot
	next  int
}

type slot struct {
	owner *udpFlow
	data  []byte // grows to what is held
}

// put holds a flow's last datagram, in place of the one before.
func (h *holding) put(f *udpFlow, p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(p) > maxHeldSize {
		f.holds.Store(false)
		return
	}
	f.holds.Store(true)
	if f.slot < len(h.slots) && h.slots[f.slot].owner == f {
		h.slots[f.slot].data = append(h.slots[f.slot].data[:0], p...)
		return
	}
	if len(h.slots) < maxHeldDatagrams {
		h.slots = append(h.slots, slot{})
		f.slot = len(h.slots) - 1
	} else {
		f.slot = h.next
		h.next = (h.next + 1) % maxHeldDatagrams
	}
	s := &h.slots[f.slot]
	s.owner, s.data = f, append(s.data[:0], p...)
}

// take gives a copy of the datagram that is held for a flow, and holds it no more.
func (h *holding) take(f *udpFlow) (p []byte, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !f.holds.Swap(false) || f.slot >= len(h.slots) || h.slots[f.slot].owner != f {
		return nil, false
	}
	return append([]byte{}, h.slots[f.slot].data...), true
}

// forget lets go of a flow that has ended.
func (h *holding) forget(f *udpFlow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.slot < len(h.slots) && h.slots[f.slot].owner == f {
		h.slots[f.slot].owner = nil
	}
}
