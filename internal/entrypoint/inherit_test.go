package entrypoint

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"culvert/internal/udp"
)

// left is a socket that another process has left.
type left struct{ ln net.Listener }

func (l left) Listen(net.ListenConfig, string, string) (net.Listener, error) { return l.ln, nil }

func leave(t *testing.T) left {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return left{ln}
}

// shortly is how long something must not happen.
const shortly = 100 * time.Millisecond

func TestAnInheritedSocketIsAcceptedFromInItsTurn(t *testing.T) {
	inherited, turn := leave(t), make(chan struct{})
	ep, err := ListenTCP(Config{Addr: "ignored", Log: quiet(), Inherit: Inheritance{inherited, turn}})
	if err != nil {
		t.Fatal(err)
	}
	if ep.Addr() != inherited.ln.Addr() {
		t.Fatalf("listens on %s", ep.Addr())
	}
	accepted := make(chan struct{}, 1)
	ran := make(chan error, 1)
	go func() {
		ran <- ep.Run(t.Context(), func(_ context.Context, c *net.TCPConn) {
			accepted <- struct{}{}
			_ = c.Close()
		})
	}()
	c, err := net.Dial("tcp", ep.Addr().String()) // waits in the kernel
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case <-accepted:
		t.Error("accepted before its turn")
	case <-time.After(shortly):
	}
	close(turn)
	<-accepted
	_ = ep.Close()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func TestAnEntrypointEndsBeforeItsTurn(t *testing.T) {
	never := make(chan struct{})
	tcp, err := ListenTCP(Config{Log: quiet(), Inherit: Inheritance{leave(t), never}})
	if err != nil {
		t.Fatal(err)
	}
	web, err := ListenHTTP(HTTPConfig{Log: quiet(), Inherit: Inheritance{leave(t), never}}, http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	datagrams, err := ListenUDP(UDPConfig{Addr: "127.0.0.1:0", Log: quiet(), Turn: never})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 3)
	go func() { ran <- tcp.Run(t.Context(), func(context.Context, *net.TCPConn) {}) }()
	go func() { ran <- web.Run(t.Context()) }()
	go func() { ran <- datagrams.Run(t.Context(), func(udp.Packet) {}) }()
	select {
	case err := <-ran:
		t.Fatalf("one ended by itself: %v", err)
	case <-time.After(shortly):
	}
	_ = tcp.Close()
	_ = web.Shutdown(t.Context())
	_ = datagrams.Close()
	for range 3 {
		if err := <-ran; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

func TestDatagramsAreReadInTheirTurn(t *testing.T) {
	turn := make(chan struct{})
	ep, err := ListenUDP(UDPConfig{Addr: "127.0.0.1:0", Log: quiet(), Turn: turn})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	ran := make(chan error, 1)
	go func() { ran <- ep.Run(t.Context(), func(p udp.Packet) { got <- string(p.Data) }) }()
	c, err := net.Dial("udp", ep.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
		t.Error("read before its turn")
	case <-time.After(shortly):
	}
	close(turn)
	if s := <-got; s != "hello" {
		t.Errorf("got %q", s)
	}
	_ = ep.Close()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
