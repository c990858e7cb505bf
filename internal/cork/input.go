package cork

import (
	"net"
	"syscall"
)

// input reads a socket ahead. The buffer is there only while something is in it.
type input struct {
	wait syscall.RawConn // nil: the connection gives no descriptor
	conn net.Conn        // for the addresses in errors
	try  func(fd uintptr) bool

	ahead      *[readAhead]byte // nil when drained
	begin, end int              // of what is in it

	// Between read and attempt: where to, nil for ahead, and what came of it.
	into []byte
	n    int
	err  error
}

// read gives what was read ahead; if there is nothing, it waits until the socket has something.
func (in *input) read(p []byte) (int, error) {
	if in.ahead != nil {
		return in.drain(p), nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(p) >= straight {
		in.into = p
	}
	in.n, in.err = 0, nil
	err := in.wait.Read(in.try) // ends with the deadline or the connection
	in.into = nil
	switch {
	case err != nil:
		return 0, err
	case in.err != nil:
		return 0, in.err
	case in.ahead != nil:
		return in.drain(p), nil
	default:
		return in.n, nil
	}
}

func (in *input) drain(p []byte) int {
	n := copy(p, in.ahead[in.begin:in.end])
	if in.begin += n; in.begin == in.end {
		reading.Put(in.ahead)
		in.ahead, in.begin, in.end = nil, 0, 0
	}
	return n
}
