//go:build !unix

package nowait

// Works says whether Read and Write do anything.
const Works = false

// Read does nothing.
func Read(uintptr, []byte) (n int, again bool, err error) { return 0, true, nil }

// Write does nothing.
func Write(uintptr, []byte) (n int, again bool, err error) { return 0, true, nil }

// Receive is Read.
func Receive(fd uintptr, p []byte) (n int, again bool, err error) { return Read(fd, p) }

// Send is Write.
func Send(fd uintptr, p []byte) (n int, again bool, err error) { return Write(fd, p) }
