//go:build linux

package systemd

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listen is the manager's end.
func listen(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		p := make([]byte, 4096)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(p[:n])
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestWhatTheManagerHears(t *testing.T) {
	next := listen(t)
	m := Listening(quiet())
	for _, test := range []struct {
		tell func()
		want string
	}{
		{func() { m.Ready("serving") }, "READY=1\nSTATUS=serving"},
		{func() { m.Status("a\nSTOPPING=1") }, "STATUS=a STOPPING=1"},
		{func() { m.Stopping("3 connections") }, "STOPPING=1\nSTATUS=3 connections"},
		{func() { m.HandedOver(42) }, "MAINPID=42\nREADY=1\nSTATUS=another process has taken over"},
	} {
		test.tell()
		if got := next(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	m.Reloading()
	fields := strings.Split(next(), "\n")
	usec, ok := strings.CutPrefix(fields[1], "MONOTONIC_USEC=")
	if _, err := strconv.ParseUint(usec, 10, 64); fields[0] != "RELOADING=1" || !ok || err != nil {
		t.Errorf("got %q", fields)
	}
}

func TestTheWatchdogHearsOfAProgramThatLives(t *testing.T) {
	next := listen(t)
	t.Setenv("WATCHDOG_USEC", "100000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	m := Listening(quiet())
	ctx, cancel := context.WithCancel(t.Context())
	ran, asked, proceed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ran)
		_ = m.Run(ctx, func() { asked <- struct{}{}; <-proceed })
	}()
	for range 3 {
		<-asked
		proceed <- struct{}{}
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
	cancel()
	select {
	case <-asked:
		proceed <- struct{}{}
	case <-ran:
	}
	<-ran
}

func TestWithoutAManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	m := Listening(quiet())
	if m != nil {
		t.Fatal("there is one")
	}
	m.Ready("x")
	m.Reloading()
	m.Stopping("x")
	m.HandedOver(1)
	if err := m.Run(t.Context(), func() { t.Error("asked for nobody") }); err != nil {
		t.Error(err)
	}
}
