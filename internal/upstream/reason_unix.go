//go:build !windows

package upstream

import "syscall"

const errRefused = syscall.ECONNREFUSED
