package upstream

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// A port that nobody listens on may be picked as the source of the very connection to it. Then the kernel connects the
// socket to itself, unless somebody looks.
func TestNoConnectionToItself(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:40000") // even ports are picked first, a few thousand in a row
	for i := range 40_000 {
		c, err := dialSocket(t.Context(), to, time.Now().Add(time.Second), true)
		switch {
		case err == nil && c.LocalAddr().String() == to.String():
			t.Fatalf("dial %d was connected to itself", i)
		case err == nil:
			_ = c.Close()
			t.Skip("somebody listens on ", to)
		case !errors.Is(err, syscall.ECONNREFUSED):
			t.Fatal(err)
		}
	}
}
