//go:build !unix

package upstream

import (
	"net"
	"syscall"
)

// descriptor is nil: waiting for a descriptor and reading it are not apart here.
func descriptor(net.Conn) syscall.RawConn { return nil }

func readDescriptor(uintptr, []byte) (int, error) { return 0, syscall.EWINDOWS }

func wouldBlock(error) bool { return false }

func readable(uintptr) bool { return true }
