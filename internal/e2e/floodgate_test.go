//go:build linux

package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
)

// A floodgate lets each of its readers read up to one offset, which its owner raises: none ends before all may.
type floodgate struct {
	mu     sync.Mutex
	limit  int64
	raised chan struct{} // closed and replaced each time
}

func newFloodgate(limit int64) *floodgate {
	return &floodgate{limit: limit, raised: make(chan struct{})}
}

func (g *floodgate) raise(limit int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = limit
	close(g.raised)
	g.raised = make(chan struct{})
}

// beyond waits until there is something to read after an offset, and returns how much; 0 once done is closed.
func (g *floodgate) beyond(done <-chan struct{}, offset int64) int64 {
	for {
		g.mu.Lock()
		room, raised := g.limit-offset, g.raised
		g.mu.Unlock()
		if room > 0 {
			return room
		}
		select {
		case <-raised:
		case <-done:
			return 0
		}
	}
}

// gated is a reader behind a floodgate.
type gated struct {
	gate   *floodgate
	done   <-chan struct{}
	src    io.Reader
	offset int64
}

func (r *gated) Read(p []byte) (int, error) {
	room := r.gate.beyond(r.done, r.offset)
	if room == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := r.src.Read(p[:min(int64(len(p)), room)])
	r.offset += int64(n)
	return n, err
}

// newGatedOrigin is a web server whose every download of ?bytes=N stops at the floodgate.
func newGatedOrigin(t *testing.T, g *floodgate) (url string) {
	t.Helper()
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.FormValue("bytes"), 10, 64)
		if err != nil {
			http.Error(w, "bytes", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.CopyN(w, &gated{gate: g, done: r.Context().Done(), src: newPattern()}, n) // the visitor sees what is missing
	}))
	t.Cleanup(o.Close)
	return o.URL
}
