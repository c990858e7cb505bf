package control

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/tunnel"
)

// book is a log that can be read while it is written.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// count is how many lines of a level contain the words.
func (b *book) count(level, words string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.b.String()) {
		if strings.Contains(line, "level="+level) && strings.Contains(line, words) {
			n++
		}
	}
	return n
}

func TestStrangersDoNotFloodTheLog(t *testing.T) {
	var log book
	b := serve(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 20 {
		if _, _, err := b.connect(t, "a wrong token of a stranger", hello("i", 1, 1)); err == nil {
			t.Fatal("let in")
		}
	}
	if n := log.count("WARN", "client refused"); n != 1 {
		t.Errorf("%d lines for 20 strangers in a row, want 1", n)
	}
}

// TestRevocationIsToldOnce has a client that reads nothing, so that it takes long to end its session.
func TestRevocationIsToldOnce(t *testing.T) {
	file, token := tokenFile(t, `{ports: ["2222"]}`)
	verifier, err := auth.New(auth.Config{File: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { _ = verifier.Run(ctx) })
	defer watching.Wait()
	defer cancel()
	var log book
	b := serve(t, func(c *Config) {
		c.Verify = verifier.Verify
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	s, _ := b.mustConnect(t, token, hello("i", 1, 1, ssh.String()))
	if err := os.WriteFile(file, []byte("tokens: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, s)
	await(t, "the session to be taken out", func() bool { return len(b.server.Clients()) == 0 })
	if n := log.count("WARN", "not valid any more"); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

// TestStopDoesNotWaitForAClientThatSaysNothing ends a server while a client with a credential keeps its hello back.
func TestStopDoesNotWaitForAClientThatSaysNothing(t *testing.T) {
	b := serve(t, nil)
	d := b.dial
	d.Header = http.Header{"Authorization": {"Bearer " + shared}}
	for range 3 {
		conn, err := d.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	begun := time.Now()
	b.server.stop()
	if took := time.Since(begun); took >= tunnel.HelloTimeout {
		t.Errorf("took %s: it waited for a hello", took)
	}
}

// TestGoAwayDoesNotWaitForAClientThatDoesNotListen has a client stop to read under bulk data.
func TestGoAwayDoesNotWaitForAClientThatDoesNotListen(t *testing.T) {
	b := serve(t, nil)
	_, thaw := frozenClient(t, b, hello("i", 1, 1, ssh.String()))
	var served *session
	for _, c := range b.server.list() {
		served = c
	}
	var streams []*mux.Stream
	for range 40 {
		st, err := served.tunnel.Open(t.Context(), tunnel.Open{Tunnel: ssh})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	var writing sync.WaitGroup
	for _, st := range streams { // more than the kernel's buffers together, each within its window
		writing.Go(func() { _, _ = st.Write(make([]byte, 256<<10)) })
	}
	var last int64
	await(t, "the link to stand still", func() bool {
		_, out := served.tunnel.Bytes()
		still := out == last && out > 1<<20
		last = out
		return still
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	b.server.GoAway(ctx)
	if took := time.Since(begun); took > 5*time.Second { // of a wait without end
		t.Errorf("took %s", took)
	}
	thaw()
	writing.Wait()
}
