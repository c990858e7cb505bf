//go:build !linux

package upstream

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// dialSocket is left to package net.
func dialSocket(context.Context, netip.AddrPort, time.Time, bool) (halfCloser, error) {
	return nil, errors.ErrUnsupported
}
