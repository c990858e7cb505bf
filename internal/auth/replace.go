package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// replace gives a file new content in one step, with mode 0600 and the owner that it had. The new file is made beside it as
// path.lock before content is called, so that of two commands at once one is refused and neither loses the other's change.
func replace(path string, content func() ([]byte, error)) (err error) {
	lock := path + ".lock"
	f, err := os.OpenFile(lock, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("another command is changing %s; if none is, remove %s", path, lock)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(lock)
		}
	}()
	b, err := content()
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if old, err := os.Stat(path); err == nil {
		keepOwner(f, old)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(lock, path)
}
