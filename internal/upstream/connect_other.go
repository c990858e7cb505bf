//go:build !linux

package upstream

import (
	"context"
	"syscall"
)

// connectNow leaves connecting to the call that follows.
func connectNow(context.Context, string, string, syscall.RawConn) error { return nil }

// shutWrite does nothing.
func (*tcpConn) shutWrite() (done bool, err error) { return false, nil }
