//go:build unix

package upstream

import (
	"errors"
	"net"
	"syscall"
)

// descriptor is the connection's descriptor, nil if it gives none.
func descriptor(c net.Conn) syscall.RawConn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

func readDescriptor(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}

func wouldBlock(err error) bool { return errors.Is(err, syscall.EAGAIN) }
