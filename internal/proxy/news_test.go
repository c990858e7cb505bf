package proxy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/upstream"
)

// Whoever can have a thousand connections refused a second must not fill the log with it.
func TestAFloodOfVisitorsInVainIsAFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := upstream.New(upstream.Config{Name: "app"})
		u.Add(upstream.Placed{Member: &told{name: "app-1", dial: func(context.Context, *upstream.Visit) (upstream.Dialed, error) {
			return upstream.Dialed{}, &upstream.DialError{Reason: upstream.Refused, Err: errors.New("nobody listens")}
		}}})
		var log bytes.Buffer
		tcp := NewTCP(TCPConfig{Settings: Settings{Name: "devices", Routes: downhill(t, u)}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		visit := func() {
			near, far := net.Pipe()
			defer far.Close()
			tcp.Serve(t.Context(), pipeEnd{near})
		}
		for range 1000 {
			visit()
		}
		if n := strings.Count(log.String(), "no connection for the visitor"); n != 10 {
			t.Errorf("%d lines of 1,000 visitors at once, want 10", n)
		}
		time.Sleep(time.Minute) // members that are left alone, and the goroutines that are kept for others
		log.Reset()
		visit()
		if got := log.String(); !strings.Contains(got, "untold=990") {
			t.Errorf("the next line does not say how many there were: %s", got)
		}
		log.Reset()
		visit()
		if got := log.String(); strings.Contains(got, "untold") || got == "" {
			t.Errorf("got %q, want a line of one visitor", got)
		}
		time.Sleep(time.Minute)
	})
}
