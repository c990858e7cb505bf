//go:build !linux

package udp

import (
	"errors"
	"net/netip"
)

// Poller hears nothing on this system: each socket has a goroutine that does.
type Poller struct{}

// Polled is there only where a Poller is.
type Polled struct{}

// Dial makes no socket here.
func (*Poller) Dial(netip.AddrPort) (*Polled, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Poller) Close() {}

// Attend is never called here, nor are the others.
func (*Polled) Attend(func(p []byte, err error)) error { return errors.ErrUnsupported }

func (*Polled) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Close does nothing.
func (*Polled) Close() error { return nil }
