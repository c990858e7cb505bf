//go:build !unix

package fileserver

// nonblock has no meaning where a folder holds no FIFOs.
const nonblock = 0
