//go:build linux

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// downloads are many visitors that each read one long answer.
type downloads struct {
	size int64
	each []*fetch
	wait sync.WaitGroup
}

type fetch struct {
	got  atomic.Int64
	done chan struct{} // closed at the end, when the rest is set
	hash string
	err  error
}

// startDownloads reads n bytes from the URL in each of count connections. They end with the test at the latest.
func startDownloads(t *testing.T, url string, count int, n int64) *downloads {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	transport := &http.Transport{DisableKeepAlives: true}
	d := &downloads{size: n}
	for range count {
		one := &fetch{done: make(chan struct{})}
		d.each = append(d.each, one)
		d.wait.Go(func() {
			defer close(one.done)
			one.hash, one.err = one.run(ctx, transport, fmt.Sprintf("%s?bytes=%d", url, n), n)
		})
	}
	t.Cleanup(func() { cancel(); d.wait.Wait() })
	return d
}

func (f *fetch) run(ctx context.Context, transport http.RoundTripper, url string, n int64) (hash string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	h := sha256.New()
	_, err = io.CopyBuffer(io.MultiWriter(h, (*counter)(&f.got)), resp.Body, make([]byte, 32<<10))
	if got := f.got.Load(); err == nil && got != n {
		err = fmt.Errorf("a clean end after %d of %d bytes", got, n)
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// counter counts what is written to it.
type counter atomic.Int64

func (c *counter) Write(p []byte) (int, error) {
	(*atomic.Int64)(c).Add(int64(len(p)))
	return len(p), nil
}

// got is how much each has read.
func (d *downloads) got() (each []int64, total int64) {
	for _, one := range d.each {
		each = append(each, one.got.Load())
		total += each[len(each)-1]
	}
	return each, total
}

// failed ends the test when downloads have failed.
func (d *downloads) failed(t *testing.T) {
	t.Helper()
	var failures []error
	for _, one := range d.each {
		select {
		case <-one.done:
			if one.err != nil {
				failures = append(failures, one.err)
			}
		default:
		}
	}
	if len(failures) > 0 {
		_, got := d.got()
		t.Fatalf("%d of %d downloads have failed, at %s of all, one with: %v", len(failures), len(d.each), mebibytes(got), failures[0])
	}
}

// reach waits until all together have read so much.
func (d *downloads) reach(t *testing.T, total int64) {
	t.Helper()
	eventually(t, 3*time.Minute, "the downloads have "+mebibytes(total), func(context.Context) error {
		d.failed(t)
		if _, got := d.got(); got < total {
			return fmt.Errorf("they have %s", mebibytes(got))
		}
		return nil
	})
}

// goOn waits until each has read more than it had.
func (d *downloads) goOn(t *testing.T, had []int64) time.Duration {
	t.Helper()
	return eventually(t, patience, "each download goes on", func(context.Context) error {
		d.failed(t)
		now, _ := d.got()
		stands := 0
		for i := range now {
			if now[i] <= had[i] {
				stands++
			}
		}
		if stands > 0 {
			return fmt.Errorf("%d of %d stand still", stands, len(now))
		}
		return nil
	})
}

// arrive waits for the end of all, and compares.
func (d *downloads) arrive(t *testing.T, want string) {
	t.Helper()
	d.reach(t, d.size*int64(len(d.each)))
	d.wait.Wait()
	d.failed(t)
	for i, one := range d.each {
		if one.hash != want {
			t.Errorf("download %d: hash: got %s, want %s", i, one.hash, want)
		}
	}
}
