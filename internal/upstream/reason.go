package upstream

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// reasonOfConnect names the reason why connecting to a fixed address failed.
func reasonOfConnect(ctx context.Context, err error) Reason {
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return Canceled
	case errors.Is(err, errRefused), errors.Is(err, syscall.ECONNRESET):
		return Refused
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return Overloaded
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return TimedOut
	default: // no route, no such host, no such socket file, a certificate that does not verify
		return Unreachable
	}
}
