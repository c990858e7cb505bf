//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An httpLedger is a web server that answers each POST with its body, and remembers how often each came.
type httpLedger struct {
	*httptest.Server
	mu    sync.Mutex
	seen  map[string]int
	total atomic.Int64
}

func startHTTPLedger(t *testing.T) *httpLedger {
	t.Helper()
	l := &httpLedger{seen: map[string]int{}}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nonce, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		l.mu.Lock()
		l.seen[string(nonce)]++
		l.mu.Unlock()
		l.total.Add(1)
		_, _ = w.Write(nonce) // the visitor sees what is missing
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *httpLedger) count(nonce string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[nonce]
}

// visitHTTP sends one POST on a connection of its own, which nobody may send twice.
func visitHTTP(addr string, within time.Duration) visit {
	v := visit{nonce: rand.Text(), begun: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	v.err = func() error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/", strings.NewReader(v.nonce))
		if err != nil {
			return err
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		back, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || string(back) != v.nonce) {
			err = fmt.Errorf("status %d, %q", resp.StatusCode, bytes.TrimSpace(back))
		}
		return err
	}()
	v.took = time.Since(v.begun)
	return v
}
