//go:build linux

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTransfersKeepTheirHashAndCostNoMemory(t *testing.T) {
	bytes := int64(1 << 30)
	if raceEnabled {
		bytes = 64 << 20 // the detector makes it ten times slower
	}
	const growth = 16 << 20
	want := patternHash(bytes)
	s, c, v := offerHTTP(t, newOrigin(t, "a").addr())

	transfers := []struct {
		name string
		run  func(t *testing.T, n int64) (hash string)
	}{
		{"download", func(t *testing.T, n int64) string { return downloadHash(t, v, n) }},
		{"upload", func(t *testing.T, n int64) string { return uploadHash(t, v, n) }},
	}
	for _, tr := range transfers { // buffers and code that any first transfer needs
		tr.run(t, 8<<20)
	}
	for _, tr := range transfers {
		t.Run(tr.name, func(t *testing.T) {
			server, client := watchMemory(t, s.process), watchMemory(t, c)
			begin := time.Now()
			if got := tr.run(t, bytes); got != want {
				t.Errorf("hash: got %s, want %s", got, want)
			}
			took := time.Since(begin)
			t.Logf("%s in %v, %.0f MB/s", mebibytes(bytes), took, float64(bytes)/1e6/took.Seconds())
			server.grewAtMost(t, "server", growth)
			client.grewAtMost(t, "client", growth)
		})
	}
	v.client.CloseIdleConnections()
	s.settlesWithout(t, c)
}

func downloadHash(t *testing.T, v *visitor, n int64) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+v.addr+"/download?bytes="+strconv.FormatInt(n, 10), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := v.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	h := sha256.New()
	if got, err := io.CopyBuffer(h, resp.Body, make([]byte, 256<<10)); err != nil || got != n {
		t.Fatalf("download: %d bytes of %d, %v", got, n, err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func uploadHash(t *testing.T, v *visitor, n int64) string {
	t.Helper()
	code, body, _, err := v.do(t.Context(), http.MethodPost, "upload.example.com", "/upload", io.LimitReader(newPattern(), n))
	if err != nil || code != http.StatusOK {
		t.Fatalf("upload: %d %s %v", code, body, err)
	}
	return strings.TrimSpace(body)
}

// A memoryWatch compares a process's highest memory with what it held at first.
type memoryWatch struct {
	p     *process
	first int64
}

func watchMemory(t *testing.T, p *process) memoryWatch {
	t.Helper()
	p.forgetPeak(t)
	now, _ := p.memory(t)
	return memoryWatch{p, now}
}

// grewAtMost logs the growth, and holds it to a limit but for the race detector, whose shadow memory grows by itself.
func (w memoryWatch) grewAtMost(t *testing.T, who string, limit int64) (grown int64) {
	t.Helper()
	_, peak := w.p.memory(t)
	grown = max(0, peak-w.first)
	t.Logf("%s: %s at first, grew by %s at most", who, mebibytes(w.first), mebibytes(grown))
	if grown > limit && !raceEnabled {
		t.Errorf("%s grew by %s, the limit is %s", who, mebibytes(grown), mebibytes(limit))
	}
	return grown
}
