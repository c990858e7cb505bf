package entrypoint

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Who was accepted just before the end is answered, though the request comes after it.
func TestARequestThatComesAfterTheEndOfAccepting(t *testing.T) {
	for name, end := range map[string]func(h *HTTP, cancel func()){
		"shutdown": func(h *HTTP, _ func()) { _ = h.Shutdown(context.Background()) },
		"context":  func(_ *HTTP, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			h, err := ListenHTTP(HTTPConfig{Addr: "127.0.0.1:0", Log: quiet()}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "served")
			}))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ran := make(chan error, 1)
			go func() { ran <- h.Run(ctx) }()
			c, err := net.Dial("tcp", h.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			await(t, "the connection is accepted", func() bool { return h.Open() == 1 })
			go end(h, cancel)
			await(t, "no more are accepted", func() bool {
				c, err := net.Dial("tcp", h.Addr().String())
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != "served" || !resp.Close {
				t.Errorf("got %q, %v; closes the connection: %v", body, err, resp.Close)
			}
			if err := <-ran; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNobodyIsWaitedForInVain(t *testing.T) {
	h, err := ListenHTTP(HTTPConfig{Addr: "127.0.0.1:0", Log: quiet()}, http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- h.Run(t.Context()) }()
	c, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	await(t, "the connection is accepted", func() bool { return h.Open() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 3*lastHeads)
	defer cancel()
	_ = h.Shutdown(ctx) // it may count who has not said anything as open for some seconds
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if h.Open() != 0 {
		t.Errorf("%d connections are open", h.Open())
	}
}

func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
