//go:build !linux

package nowait

import "errors"

// Splices says whether Splice does anything.
const Splices = false

// Splice does nothing.
func Splice(uintptr, uintptr, int) (moved int, again bool, err error) {
	return 0, false, errors.ErrUnsupported
}
