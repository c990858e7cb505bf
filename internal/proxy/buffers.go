package proxy

import "sync"

const bufferSize = 32 << 10

// buffers is shared by all relays; it holds no state, only memory to use again.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func getBuffer() *[bufferSize]byte { return buffers.Get().(*[bufferSize]byte) }

func putBuffer(b *[bufferSize]byte) { buffers.Put(b) }

// bufferPool is the same pool for httputil.
type bufferPool struct{}

func (bufferPool) Get() []byte { return getBuffer()[:] }

func (bufferPool) Put(b []byte) { putBuffer((*[bufferSize]byte)(b)) }
