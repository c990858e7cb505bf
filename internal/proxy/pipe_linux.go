package proxy

import (
	"math"

	"golang.org/x/sys/unix"
)

// newPipe opens a pipe, or gives nil where descriptors run short: those that are left are for connections.
func newPipe() *pipe {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil
	}
	p := &pipe{out: uintptr(fds[0]), in: uintptr(fds[1])}
	// The kernel gives the lowest number that is free, so the number says how many are in use. An eighth is for others.
	if most := mostDescriptors(); max(fds[0], fds[1]) >= most-most/8 {
		p.close()
		return nil
	}
	// Users have a common limit of pages in pipes: past it a pipe is as small as it was, or smaller, and works.
	_, _ = unix.FcntlInt(p.in, unix.F_SETPIPE_SZ, pipeSize)
	return p
}

// mostDescriptors is how many the process may have.
func mostDescriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}

func (p *pipe) close() {
	_ = unix.Close(int(p.in))
	_ = unix.Close(int(p.out))
}

// read takes what is in the pipe out of it by hand.
func (p *pipe) read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(p.out), b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
