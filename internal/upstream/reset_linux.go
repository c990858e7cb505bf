package upstream

import "golang.org/x/sys/unix"

const tcpClose = 7 // TCP_CLOSE of the kernel's net/tcp_states.h

// wasReset says whether c, which read an end of data and has not ended its own side, was in truth reset: after a FIN
// the socket waits for our end (CLOSE_WAIT), after a RST nothing is left of the connection (CLOSE). Sockets of
// other networks do not tell.
func (c *tcpConn) wasReset() bool {
	if c.raw == nil {
		return false
	}
	reset := false
	_ = c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		reset = err == nil && info.State == tcpClose
	})
	return reset
}
