package mux

// owe is a frame that a stream has to send before anything else, as a bit.
type owe uint8

const (
	oweOpen owe = 1 << iota
	oweReceived
	oweResult
	oweWindow
	oweReset
)

// which says in which of its link's queues a stream is.
type which uint8

const (
	inUrgent which = 1 << iota
	inReady
)

// streamQueue is a queue of streams, linked through their next fields: a stream is at most once in each kind.
type streamQueue struct {
	kind       which
	head, tail *Stream
	n          int
}

func (st *Stream) nextIn(k which) **Stream {
	if k == inReady {
		return &st.nextReady
	}
	return &st.nextUrgent
}

func (q *streamQueue) push(k which, st *Stream) {
	if st.queued&k != 0 {
		return
	}
	st.queued |= k
	q.kind = k
	if q.tail == nil {
		q.head = st
	} else {
		*q.tail.nextIn(k) = st
	}
	q.tail = st
	q.n++
}

// pop takes the first stream out, nil if there is none.
func (q *streamQueue) pop() *Stream {
	st := q.head
	if st == nil {
		return nil
	}
	next := st.nextIn(q.kind)
	q.head = *next
	if q.head == nil {
		q.tail = nil
	}
	q.n--
	*next = nil
	st.queued &^= q.kind
	return st
}
