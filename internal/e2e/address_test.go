//go:build linux

package e2e

import (
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
)

// nextPort is where the search for a free port goes on. Ports for listeners come from below the kernel's ephemeral
// range, so that no connection of the tests takes one between its choice and its use.
var nextPort atomic.Uint32

// freeAddr is an address of the loopback interface that nothing listens on, and that no other test was given.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 5000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(20000+nextPort.Add(1)%10000)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		return addr
	}
	t.Fatal("no free port")
	return ""
}

// port is the port of an address, as an argument.
func port(t *testing.T, addr string) string {
	t.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(int(a.Port()))
}
