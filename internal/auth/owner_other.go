//go:build !unix

package auth

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: a new file inherits its access from the folder.
func keepOwner(*os.File, fs.FileInfo) {}
