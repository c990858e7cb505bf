package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// newID makes the id of a connection or request, the same in the logs of both ends of a tunnel. It is a name and no
// secret.
func newID() string {
	var b [8]byte
	var digits [16]byte
	binary.BigEndian.PutUint64(b[:], rand.Uint64())
	hex.Encode(digits[:], b[:])
	return string(digits[:])
}
