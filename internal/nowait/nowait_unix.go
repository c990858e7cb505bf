//go:build unix && !linux

package nowait

import (
	"errors"
	"syscall"
)

// Works says whether Read and Write do anything.
const Works = true

// Read reads what there is. again says that there is nothing at the moment; 0 without it is the end.
func Read(fd uintptr, p []byte) (n int, again bool, err error) { return call(syscall.Read, fd, p) }

// Write writes what the descriptor takes. again says that it takes nothing at the moment.
func Write(fd uintptr, p []byte) (n int, again bool, err error) { return call(syscall.Write, fd, p) }

func call(f func(int, []byte) (int, error), fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err := f(int(fd), p)
		switch {
		case err == nil:
			return n, false, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, true, nil
		default:
			return 0, false, err
		}
	}
}

// Receive is Read.
func Receive(fd uintptr, p []byte) (n int, again bool, err error) { return Read(fd, p) }

// Send is Write.
func Send(fd uintptr, p []byte) (n int, again bool, err error) { return Write(fd, p) }
