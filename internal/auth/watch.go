package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"time"
)

const (
	pollInterval = time.Second
	// racyFor is how long after its last change a file is read again even if it looks the same: two changes within one tick
	// of the file system's clock leave the same time.
	racyFor = 2 * time.Second

	maxTokenFile = 64 << 20
)

// Run re-reads the token file when it changes, within about a second, until the context ends; then it returns nil. A file that
// is missing or not in order is logged once, and what it held before stays in force. Only one Run at a time.
func (v *Verifier) Run(ctx context.Context) error {
	if v.file.path == "" {
		<-ctx.Done()
		return nil
	}
	v.warnIfReadable()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var fault string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		content, changed, err := v.file.read()
		if err == nil && changed {
			err = v.load(content)
		}
		switch {
		case err != nil && err.Error() != fault:
			fault = err.Error()
			v.log.Error("token file not taken over, the tokens before stay in force", "file", v.file.path, "err", err)
		case err == nil && changed:
			fault = ""
			v.log.Info("token file read", "file", v.file.path, "tokens", len(*v.tokens.Load()))
			v.warnIfReadable()
		}
	}
}

func (v *Verifier) warnIfReadable() {
	if v.file.info == nil || runtime.GOOS == "windows" { // Windows has other rules, and Go makes up a mode for them
		return
	}
	if mode := v.file.info.Mode().Perm(); mode&0o077 != 0 {
		v.log.Warn("token file is open to others than its owner, make it 0600",
			slog.String("file", v.file.path), slog.String("mode", mode.String()))
	}
}

// watchedFile is a file and what it was when it was last read.
type watchedFile struct {
	path   string
	info   fs.FileInfo
	readAt time.Time
	sum    [sha256.Size]byte // of its content
}

// read is the content if it is not that of the last read; after an error it always is. A file that looks as it did is not
// opened.
func (w *watchedFile) read() (content []byte, changed bool, err error) {
	info, err := os.Stat(w.path)
	if err == nil && w.same(info) {
		return nil, false, nil
	}
	readAt := time.Now()
	if err == nil {
		info, content, err = readTokenFile(w.path)
	}
	if err != nil {
		w.info = nil
		return nil, false, err
	}
	sum := sha256.Sum256(content)
	changed = w.info == nil || sum != w.sum
	w.info, w.readAt, w.sum = info, readAt, sum
	return content, changed, nil
}

// readTokenFile looks at the file before it reads it: what is written meanwhile makes the next look differ.
func readTokenFile(path string) (fs.FileInfo, []byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err == nil && len(content) > maxTokenFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxTokenFile)
	}
	return info, content, err
}

func (w *watchedFile) same(info fs.FileInfo) bool {
	return w.info != nil && os.SameFile(info, w.info) && info.ModTime().Equal(w.info.ModTime()) && info.Size() == w.info.Size() &&
		info.Mode() == w.info.Mode() && w.readAt.Sub(info.ModTime()) > racyFor
}
