package mux

import (
	"fmt"
	"slices"
	"sync"
)

// streamTable holds a session's streams. It is guarded by the session's mutex.
type streamTable struct {
	all      map[uint64]*Stream
	waiting  []*Stream // arrived, and not accepted yet
	dialler  bool
	next     uint64 // id of this side's next stream
	own      int    // streams of this side in all
	peers    int    // the other ones
	ownMax   int    // that the peer takes
	peersMax int    // that this side takes
	refused  int    // opens of the peer beyond peersMax
	seen     seenIDs
	leaving  int       // in all, and closed by their user
	settled  sync.Cond // leaving has fallen to 0, or the session has ended
}

// assumedStreams is how many streams a peer takes that has not said it yet.
const assumedStreams = 16

func (t *streamTable) init(s *Session) {
	t.all = make(map[uint64]*Stream)
	t.dialler, t.ownMax, t.peersMax = s.dialler, assumedStreams, s.cfg.MaxStreams
	t.settled.L = &s.mu
	t.next, t.seen.next = 2, 1
	if t.dialler {
		t.next, t.seen.next = 1, 2
	}
}

func (t *streamTable) full() bool { return t.own >= t.ownMax }

func (t *streamTable) crowded() bool { return t.peers >= t.peersMax }

func (t *streamTable) nextID() uint64 {
	id := t.next
	t.next += 2
	return id
}

func (t *streamTable) isOwn(id uint64) bool { return id%2 == 1 == t.dialler }

func (t *streamTable) add(st *Stream) {
	t.all[st.id] = st
	if st.own {
		t.own++
	} else {
		t.peers++
	}
}

// find gives the stream of a frame; nil without an error for one that has ended here.
func (t *streamTable) find(id uint64) (*Stream, error) {
	if st := t.all[id]; st != nil {
		return st, nil
	}
	if t.isOwn(id) {
		if id >= t.next {
			return nil, fmt.Errorf("stream %d: nobody opened it", id)
		}
		return nil, nil
	}
	if !t.seen.has(id) {
		return nil, fmt.Errorf("stream %d: a frame before its OPEN", id)
	}
	return nil, nil
}

// sawOpen marks an id of the peer as spent, and says whether it was fresh.
func (t *streamTable) sawOpen(id uint64) (fresh bool, err error) {
	if t.isOwn(id) {
		if id >= t.next {
			return false, fmt.Errorf("stream %d: an id of this side", id)
		}
		return false, nil
	}
	if t.seen.has(id) {
		return false, nil
	}
	if t.seen.add(id); len(t.seen.ahead) > 2*t.peersMax+1024 {
		return false, fmt.Errorf("stream %d: ids left out", id)
	}
	return true, nil
}

// arrived has a stream wait for its acceptor. Those that the peer has reset meanwhile make room.
func (t *streamTable) arrived(st *Stream) {
	if len(t.waiting) > 2*t.peers+64 {
		t.waiting = slices.DeleteFunc(t.waiting, func(st *Stream) bool {
			if st.err != nil {
				st.leave()
			}
			return st.err != nil
		})
	}
	t.waiting = append(t.waiting, st)
}

// accept takes the first stream out that waits and has not failed meanwhile; more says that others wait.
func (t *streamTable) accept() (st *Stream, more bool) {
	for len(t.waiting) > 0 && st == nil {
		st, t.waiting[0] = t.waiting[0], nil
		t.waiting = t.waiting[1:]
		if st.err != nil {
			st.leave()
			st = nil
		}
	}
	if len(t.waiting) == 0 {
		t.waiting = nil
	}
	return st, len(t.waiting) > 0
}

// failAll fails every stream for the end of the session.
func (t *streamTable) failAll(cause error) {
	for _, st := range t.waiting {
		st.leave()
	}
	t.waiting = nil
	for _, st := range t.all {
		st.fail(cause)
		st.s.drop(st)
	}
	t.settled.Broadcast()
}

// drop takes a stream out of the session's table. The caller holds the session's mutex.
func (s *Session) drop(st *Stream) {
	if st.dropped {
		return
	}
	st.dropped = true
	t := &s.table
	delete(t.all, st.id)
	if st.own {
		t.own--
	} else {
		t.peers--
	}
	if st.left {
		if t.leaving--; t.leaving == 0 {
			t.settled.Broadcast()
		}
	}
	st.toLink(nil)
	st.send.settle(s.cfg.Budget)
	s.cfg.Budget.give(st.receive.charged)
	st.receive.charged = 0
}

// dropIfOver drops a stream both of whose directions have ended in order, and of which the peer knows all.
func (st *Stream) dropIfOver() {
	if st.receive.over && st.send.over() && st.owed == 0 && !st.dropped {
		st.s.drop(st)
	}
}

// seenIDs is the set of ids that the peer has spent: all below next, and those ahead.
type seenIDs struct {
	next  uint64
	ahead map[uint64]struct{}
}

func (s *seenIDs) has(id uint64) bool {
	if id < s.next {
		return true
	}
	_, ok := s.ahead[id]
	return ok
}

func (s *seenIDs) add(id uint64) {
	if id != s.next {
		if s.ahead == nil {
			s.ahead = make(map[uint64]struct{})
		}
		s.ahead[id] = struct{}{}
		return
	}
	for s.next += 2; len(s.ahead) > 0; s.next += 2 {
		if _, ok := s.ahead[s.next]; !ok {
			return
		}
		delete(s.ahead, s.next)
	}
}
