package upstream

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connectNow begins to connect a socket that is about to be connected. A service on this machine has it connected when the
// call returns, so that nobody need wait for it; what is not connected then, or failed, the second call tells that follows.
//
// The call is made without telling the scheduler. It waits for nothing, but takes so long on this machine, whose kernel
// does the service's part too, that its processor would be given away.
func connectNow(ctx context.Context, network, address string, c syscall.RawConn) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	to, _ := netip.ParseAddrPort(address) // the zero AddrPort for a path
	switch {
	case network == "tcp4" && to.Addr().Is4():
		sa := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: bigEndian(to.Port()), Addr: to.Addr().As4()}
		return connectSocket(c, unsafe.Pointer(&sa), syscall.SizeofSockaddrInet4)
	case network == "tcp6" && to.Addr().Is6() && to.Addr().Zone() == "":
		sa := syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: bigEndian(to.Port()), Addr: to.Addr().As16()}
		return connectSocket(c, unsafe.Pointer(&sa), syscall.SizeofSockaddrInet6)
	}
	return nil
}

func connectSocket(c syscall.RawConn, sa unsafe.Pointer, size uintptr) error {
	return c.Control(func(fd uintptr) {
		_, _, _ = syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(sa), size)
	})
}

// bigEndian is a port as it stands in memory on the network.
func bigEndian(port uint16) uint16 {
	b := [2]byte{byte(port >> 8), byte(port)}
	return *(*uint16)(unsafe.Pointer(&b))
}

// shutWrite ends c's sending direction, as CloseWrite does, and says whether it could. It does not tell the scheduler: the
// end is on its way when it returns, which on this machine means that the kernel has done the other side's part too.
func (c *tcpConn) shutWrite() (done bool, err error) {
	if c.raw == nil {
		return false, nil
	}
	var errno syscall.Errno
	if err := c.raw.Control(func(fd uintptr) {
		_, _, errno = syscall.RawSyscall(unix.SYS_SHUTDOWN, fd, syscall.SHUT_WR, 0)
	}); err != nil {
		return true, err
	}
	if errno != 0 {
		return true, &net.OpError{Op: "close", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: errno}
	}
	return true, nil
}
