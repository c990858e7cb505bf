package proxy

import (
	"crypto/rand"
	"encoding/hex"
)

// newID makes the id of a connection or request, the same in the logs of both ends of a tunnel.
func newID() string {
	var b [8]byte
	var digits [16]byte
	_, _ = rand.Read(b[:]) // never fails
	hex.Encode(digits[:], b[:])
	return string(digits[:])
}
