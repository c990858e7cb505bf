package upstream

import "syscall"

const errRefused = syscall.Errno(10061) // WSAECONNREFUSED; syscall.ECONNREFUSED is an invented number on Windows
