//go:build !unix

package upstream

import (
	"net"
	"syscall"
)

// descriptor is nil: waiting for a descriptor and reading it are not apart here.
func descriptor(net.Conn) syscall.RawConn { return nil }

func readable(uintptr) bool { return true }
