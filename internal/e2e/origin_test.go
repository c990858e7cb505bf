//go:build linux

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
)

// An origin is a web server behind a client, which says who it is.
type origin struct {
	*httptest.Server
	name     string
	requests atomic.Int64
	next     chan struct{} // lets /events send one more
}

func newOrigin(t *testing.T, name string) *origin {
	t.Helper()
	o := &origin{name: name, next: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/", o.hello)
	mux.HandleFunc("/headers", headers)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("GET /download", download)
	mux.HandleFunc("POST /upload", upload)
	mux.HandleFunc("GET /events", o.events)
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.requests.Add(1)
		w.Header().Set("Origin-Name", name)
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

// addr is its host and port.
func (o *origin) addr() string { return o.Listener.Addr().String() }

func (o *origin) hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s %s\n", o.name, r.Method, r.URL.Path)
}

// headers answers with the request's header as it arrived.
func headers(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Host: %s\r\n", r.Host)
	_ = r.Header.Write(w)
}

// echo sends every message of a WebSocket back.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

// events sends one event at once and another each time that o.next is received from.
func (o *origin) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := 0; ; i++ {
		fmt.Fprintf(w, "data: event %d\n\n", i)
		_ = http.NewResponseController(w).Flush() // fails only if the visitor is gone
		select {
		case <-o.next:
		case <-r.Context().Done():
			return
		}
	}
}

// pattern is an endless stream whose every mebibyte differs, at little cost.
type pattern struct {
	block []byte
	rest  []byte
	count uint64
}

func newPattern() *pattern {
	block := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(block) // never fails
	return &pattern{block: block}
}

func (p *pattern) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		p.count++
		binary.BigEndian.PutUint64(p.block, p.count)
		p.rest = p.block
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// patternHash is the hash of the first n bytes of a pattern.
func patternHash(n int64) string {
	h := sha256.New()
	_, _ = io.CopyN(h, newPattern(), n) // neither side fails
	return hex.EncodeToString(h.Sum(nil))
}

// download sends ?bytes=N of a pattern.
func download(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.FormValue("bytes"), 10, 64)
	if err != nil {
		http.Error(w, "bytes", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, newPattern(), n) // the visitor sees what is missing
}

// upload answers with the hash of what was sent.
func upload(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	if _, err := io.CopyBuffer(h, r.Body, make([]byte, 256<<10)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, hex.EncodeToString(h.Sum(nil)))
}

func TestPatternIsTheSameForAnyReader(t *testing.T) {
	var small, large bytes.Buffer
	_, _ = io.CopyBuffer(struct{ io.Writer }{&small}, io.LimitReader(newPattern(), 3<<20), make([]byte, 1000))
	_, _ = io.CopyBuffer(struct{ io.Writer }{&large}, io.LimitReader(newPattern(), 3<<20), make([]byte, 1<<20))
	if !bytes.Equal(small.Bytes(), large.Bytes()) || bytes.Equal(small.Bytes()[:1<<20], small.Bytes()[1<<20:2<<20]) {
		t.Error("the pattern depends on its reader, or repeats")
	}
}
