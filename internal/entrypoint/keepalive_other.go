//go:build !linux

package entrypoint

import "net"

// inheritKeepAlive leaves the keep-alive to Go, connection by connection.
func inheritKeepAlive(*net.ListenConfig) {}
