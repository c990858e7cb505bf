//go:build unix

package accesslog

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A named pipe that nobody reads is told at once: to open it would wait for a reader, and so would the server.
func TestAPipeWithoutAReaderIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	l := New(Config{Path: path, Log: slog.New(slog.DiscardHandler)})
	opened := make(chan error, 1)
	go func() { opened <- l.Open() }()
	select {
	case err := <-opened:
		if err == nil || !strings.Contains(err.Error(), "nobody reads the pipe") {
			t.Errorf("got %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits for a reader")
		_, _ = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // lets it go
		<-opened
	}
}

func TestAPipeWithAReaderGetsLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	l := New(Config{Path: path, Log: slog.New(slog.DiscardHandler)})
	if err := l.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = l.Run(ctx)
	}()
	defer func() { cancel(); <-ended }()
	l.Opened(Record{ID: "one", Begun: time.Now()}).Closed(func(*Record) {})
	_ = reader.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil && err != io.EOF || !strings.Contains(line, "conn=one") {
		t.Errorf("got %q, %v", line, err)
	}
}
