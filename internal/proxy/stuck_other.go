//go:build !linux

package proxy

import "culvert/internal/upstream"

func stateOf(upstream.Conn) state { return present }
