//go:build !linux

package upstream

// wasReset cannot be asked here; a reset is told by the error of whichever of Read and Write hears of it.
func (*tcpConn) wasReset() bool { return false }
