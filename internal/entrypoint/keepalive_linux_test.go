package entrypoint

import (
	"net"
	"syscall"
	"testing"
)

func TestAcceptedConnectionsAreKeptAlive(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			ln, err := listen(listening{addr: addr, log: quiet()})
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			near, err := net.Dial("tcp", ln.tcp.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			far, err := ln.accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			raw, err := far.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			for _, tt := range []struct {
				name          string
				level, option int
				want          int
			}{
				{"kept alive", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
				{"seconds until the first probe", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
				{"seconds between probes", syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
				{"probes", syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 9},
				{"no delay", syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
			} {
				_ = raw.Control(func(fd uintptr) {
					if got, err := syscall.GetsockoptInt(int(fd), tt.level, tt.option); got != tt.want || err != nil {
						t.Errorf("%s: %d, %v, want %d", tt.name, got, err, tt.want)
					}
				})
			}
		})
	}
}
