//go:build unix

package udp

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// descriptors says whether sockets are read and written by their descriptors.
const descriptors = true

// receiveFrom reads a datagram. again says that there is none at the moment.
func receiveFrom(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, true, nil
		default:
			return max(n, 0), false, err
		}
	}
}

// sendTo sends a datagram, an empty one too. again says that the kernel's buffer is full.
func sendTo(fd uintptr, p []byte) (again bool, err error) {
	for {
		_, err := unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return true, nil
		default:
			return false, err
		}
	}
}
