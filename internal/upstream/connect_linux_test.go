package upstream

import (
	"context"
	"net"
	"syscall"
	"testing"
)

func TestConnectNowConnects(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			ln := listen(t, "tcp", addr)
			var before, after error
			d := net.Dialer{ControlContext: func(ctx context.Context, network, address string, c syscall.RawConn) error {
				before = connected(c)
				err := connectNow(ctx, network, address, c)
				after = connected(c)
				return err
			}}
			c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if before == nil || after != nil {
				t.Errorf("the socket has a peer: %v before the call, %v after it; want an error and nil", before, after)
			}
		})
	}
}

// connected is nil if the socket has a peer.
func connected(c syscall.RawConn) (err error) {
	if failed := c.Control(func(fd uintptr) { _, err = syscall.Getpeername(int(fd)) }); failed != nil {
		return failed
	}
	return err
}
