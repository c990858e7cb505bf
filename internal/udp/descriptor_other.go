//go:build !unix

package udp

import "syscall"

// descriptors says whether sockets are read and written by their descriptors.
const descriptors = false

func receiveFrom(uintptr, []byte) (n int, again bool, err error) { return 0, false, syscall.EWINDOWS }

func sendTo(uintptr, []byte) (again bool, err error) { return false, syscall.EWINDOWS }
