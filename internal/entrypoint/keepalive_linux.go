package entrypoint

import (
	"errors"
	"net"
	"syscall"
)

// inheritKeepAlive has the kernel give each connection the keep-alive that Go would set, which takes Go four system calls
// a connection: what is set on a listening socket holds for what it accepts.
func inheritKeepAlive(lc *net.ListenConfig) {
	lc.KeepAlive = -1
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = setKeepAlive(int(fd)) })
		return errors.Join(err, set)
	}
}

func setKeepAlive(fd int) error {
	return errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 9),
	)
}
