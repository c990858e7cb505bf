package nowait

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Splices says whether Splice does anything.
const Splices = true

// Splice moves up to n bytes from a socket into a pipe, or from a pipe into a socket, without a copy through this process.
// again says that there is nothing to move at the moment, or no room for it; 0 without it is the end of the socket.
func Splice(from, to uintptr, n int) (moved int, again bool, err error) {
	for {
		r, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, from, 0, to, 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		switch errno {
		case 0:
			return int(r), false, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, errno
		}
	}
}
