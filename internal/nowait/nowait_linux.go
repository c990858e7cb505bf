package nowait

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Works says whether Read and Write do anything.
const Works = true

// Read reads what there is. again says that there is nothing at the moment; 0 without it is the end.
func Read(fd uintptr, p []byte) (n int, again bool, err error) {
	return call(syscall.SYS_READ, fd, p)
}

// Write writes what the descriptor takes. again says that it takes nothing at the moment.
func Write(fd uintptr, p []byte) (n int, again bool, err error) {
	return call(syscall.SYS_WRITE, fd, p)
}

func call(trap, fd uintptr, p []byte) (n int, again bool, err error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	for {
		r, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
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

// Receive is Read for sockets, for which it costs less.
func Receive(fd uintptr, p []byte) (n int, again bool, err error) {
	n, again, err = socketCall(unix.SYS_RECVFROM, fd, p, unix.MSG_DONTWAIT)
	if errors.Is(err, syscall.ENOTSOCK) {
		return Read(fd, p)
	}
	return n, again, err
}

// Send is Write for sockets, for which it costs less.
func Send(fd uintptr, p []byte) (n int, again bool, err error) {
	n, again, err = socketCall(unix.SYS_SENDTO, fd, p, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if errors.Is(err, syscall.ENOTSOCK) {
		return Write(fd, p)
	}
	return n, again, err
}

func socketCall(trap, fd uintptr, p []byte, flags uintptr) (n int, again bool, err error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	for {
		r, _, errno := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
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
