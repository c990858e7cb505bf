package proxy

import (
	"golang.org/x/sys/unix"

	"culvert/internal/upstream"
)

// States of a TCP connection, of include/net/tcp_states.h.
const (
	tcpClose     = 7
	tcpCloseWait = 8
)

func stateOf(c upstream.Conn) state {
	raw, ok := rawConn(c)
	if !ok {
		return present
	}
	found := present
	_ = raw.Control(func(fd uintptr) { // fails on a closed connection, which is over
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		switch {
		case err != nil:
		case info.State == tcpClose:
			found = gone
		case info.State == tcpCloseWait:
			found = ended
		}
	})
	return found
}
