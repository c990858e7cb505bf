//go:build unix

package fileserver

import "syscall"

// nonblock makes the open of a FIFO return at once.
const nonblock = syscall.O_NONBLOCK
