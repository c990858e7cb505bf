package proxy

import (
	"errors"
	"io"

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
	var now uint8
	_ = raw.Control(func(fd uintptr) { // fails on a closed connection, which is over
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			now = info.State
		}
	})
	switch {
	case now == tcpCloseWait:
		return ended
	case now != tcpClose:
		return present
	case errors.Is(upstream.EndOfRead(c), io.EOF): // that is left of an orderly end, too, once this side has ended as well
		return ended
	default:
		return gone
	}
}
