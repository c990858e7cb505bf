//go:build !linux

package cork

import "net"

// Tune sets the options of a link, which only Linux has.
func Tune(net.Conn) {}
