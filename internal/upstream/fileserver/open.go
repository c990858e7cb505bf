package fileserver

import (
	"io/fs"
	"os"
)

// file is an open file or folder and what it was when it was opened.
type file struct {
	*os.File
	info fs.FileInfo
}

// open opens a regular file or a folder below the root, nothing else. The caller closes it.
//
// It looks first, because opening alone can already do harm: a FIFO waits for a writer, a tape rewinds, a watchdog
// starts to count. It looks again at what it got, because the name may mean something else by then; for that moment
// nonblock keeps a FIFO from holding the request.
func open(root *os.Root, name string) (*file, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !servable(info) {
		return nil, fs.ErrNotExist
	}
	f, err := root.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, err
	}
	info, err = f.Stat()
	if err == nil && !servable(info) {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return &file{f, info}, nil
}

func servable(info fs.FileInfo) bool { return info.Mode().IsRegular() || info.IsDir() }
