package mux

// barrier remembers what must not get lost with a link, until the peer's answer to a later ping proves that it arrived.
type barrier struct {
	before, after unproven // what was sent before the ping that is outstanding, and since
}

type unproven struct {
	frames []byte   // that ended streams
	losses []uint32 // links that the peer was told are lost
}

// maxGoodbyes is how much may be unproven while the peer does not answer.
const maxGoodbyes = 4 << 20

// manyGoodbyes makes it worth a ping before its time.
const manyGoodbyes = 64 << 10

func (b *barrier) ask() {
	b.before.frames = append(b.before.frames, b.after.frames...)
	b.before.losses = append(b.before.losses, b.after.losses...)
	b.after = unproven{frames: b.after.frames[:0]}
}

func (b *barrier) answered() {
	b.before = unproven{}
	if cap(b.after.frames) > manyGoodbyes || len(b.after.frames) == 0 {
		b.after.frames = append([]byte(nil), b.after.frames...) // not the memory of a busy time
	}
}

func (b *barrier) goodbyes() []byte { return append(b.before.frames, b.after.frames...) }

func (b *barrier) size() int { return len(b.before.frames) + len(b.after.frames) }

func (b *barrier) losses() []uint32 { return append(b.before.losses, b.after.losses...) }
