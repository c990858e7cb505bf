package mux

import "sync"

// chunk is a piece of a stream's bytes in memory of a pool. Bytes are only ever appended to it, up to its capacity, so
// what was sent stays as it was until the whole chunk is released.
type chunk struct {
	next *chunk
	off  uint64 // in the stream's direction, of the first byte
	buf  []byte
}

func (c *chunk) end() uint64 { return c.off + uint64(len(c.buf)) }

// The sizes of chunks. The largest is a bit less than 64 KiB, so that with its headers it fits into four TLS records.
const (
	chunkTiny   = 1 << 10
	chunkSmall  = 4 << 10
	chunkMiddle = 16 << 10
	chunkLarge  = 64<<10 - 128
)

var (
	tinyChunks   = sync.Pool{New: func() any { return &chunk{buf: make([]byte, 0, chunkTiny)} }}
	smallChunks  = sync.Pool{New: func() any { return &chunk{buf: make([]byte, 0, chunkSmall)} }}
	middleChunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, 0, chunkMiddle)} }}
	largeChunks  = sync.Pool{New: func() any { return &chunk{buf: make([]byte, 0, chunkLarge)} }}
)

func poolFor(size int) *sync.Pool {
	switch {
	case size <= chunkTiny:
		return &tinyChunks
	case size <= chunkSmall:
		return &smallChunks
	case size <= chunkMiddle:
		return &middleChunks
	default:
		return &largeChunks
	}
}

// newChunk gives an empty chunk that holds size bytes, chunkLarge at most.
func newChunk(size int) *chunk { return poolFor(size).Get().(*chunk) }

func (c *chunk) release() {
	c.next, c.off, c.buf = nil, 0, c.buf[:0]
	poolFor(cap(c.buf)).Put(c)
}

// chunkQueue is a queue of contiguous bytes.
type chunkQueue struct {
	head, tail *chunk
	held       int64 // capacity of all of it
}

// append copies p behind the end, whose offset is off.
func (q *chunkQueue) append(off uint64, p []byte) {
	for len(p) > 0 {
		t := q.tail
		if t == nil || len(t.buf) == cap(t.buf) {
			t = newChunk(len(p))
			t.off = off
			q.push(t)
		}
		n := min(len(p), cap(t.buf)-len(t.buf))
		t.buf = append(t.buf, p[:n]...)
		p, off = p[n:], off+uint64(n)
	}
}

// push takes c over as the new tail.
func (q *chunkQueue) push(c *chunk) {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
	q.held += int64(cap(c.buf))
}

// unshift copies p, which ends where the queue begins, to its front.
func (q *chunkQueue) unshift(off uint64, p []byte) {
	var front chunkQueue
	front.append(off, p)
	front.tail.next = q.head
	if q.tail == nil {
		q.tail = front.tail
	}
	q.head = front.head
	q.held += front.held
}

// pop takes the head out.
func (q *chunkQueue) pop() *chunk {
	c := q.head
	if q.head = c.next; q.head == nil {
		q.tail = nil
	}
	c.next = nil
	q.held -= int64(cap(c.buf))
	return c
}

// releaseTo releases the chunks that end at or before off.
func (q *chunkQueue) releaseTo(off uint64) {
	for q.head != nil && q.head.end() <= off {
		q.pop().release()
	}
}

// clear releases everything.
func (q *chunkQueue) clear() {
	for q.head != nil {
		q.pop().release()
	}
}

// batchSize is how much a link writes at a time. A link's first bytes of a batch are its carrier's.
const batchSize = 64 << 10

// maxHeadroom is the most that a carrier may want in front of a batch.
const maxHeadroom = 64

type batchBuffer struct{ b []byte }

// batches are what links write out of; a batch may exceed its size by one frame.
var batches = sync.Pool{New: func() any { return &batchBuffer{make([]byte, 0, maxHeadroom+batchSize+maxBody+frameSlack)} }}

// readBuffers are what links read into while they are busy.
var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

const readSize = 128 << 10
