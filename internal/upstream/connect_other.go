//go:build !linux

package upstream

import (
	"context"
	"net"
	"syscall"
)

// connectNow leaves connecting to the call that follows.
func connectNow(context.Context, string, string, syscall.RawConn) error { return nil }

// shutWrite does nothing.
func shutWrite(net.Conn) (done bool, err error) { return false, nil }
