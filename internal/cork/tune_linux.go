package cork

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// notSent bounds what the kernel holds beyond what the path can take: what is behind it waits for less.
	notSent = 128 << 10
	// userTimeout is how long sent bytes may stay unacknowledged, in milliseconds.
	userTimeout = 10_000
)

// Tune sets the options of a link on a socket: few unsent bytes, and an end when the peer is silent for 10 s. A failure
// costs speed, not correctness, and is not told. Other connections are left alone.
func Tune(c net.Conn) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
	})
}
