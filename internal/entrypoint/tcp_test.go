package entrypoint

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// running is a TCP entrypoint that echoes.
type running struct {
	*TCP
	stop    context.CancelFunc
	handled chan error // what each handler's reading ended with
	done    chan error
}

func run(t *testing.T, cfg Config) *running {
	t.Helper()
	cfg.Log = quiet()
	ep, err := ListenTCP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &running{ep, stop, make(chan error, 100), make(chan error, 1)}
	go func() {
		r.done <- ep.Run(ctx, func(ctx context.Context, c *net.TCPConn, over func()) {
			go func() {
				defer over()
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				_, err := io.Copy(c, struct{ io.Reader }{c})
				r.handled <- err
			}()
		})
	}()
	t.Cleanup(func() { // with the context of the test
		ep.Abort()
		stop()
	})
	return r
}

func TestTCPServesEachAddressFamily(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		t.Run(addr, func(t *testing.T) {
			r := run(t, Config{Addr: addr})
			c := dial(t, r.Addr())
			wantEcho(t, c)
			c.Close()
			if err := <-r.handled; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTCPAddressInUse(t *testing.T) {
	r := run(t, Config{Addr: "127.0.0.1:0"})
	_, err := ListenTCP(Config{Addr: r.Addr().String(), Log: quiet()})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen gave %v, want address in use", err)
	}
}

func TestTCPRefusesSources(t *testing.T) {
	var refused reasons
	r := run(t, Config{Addr: "127.0.0.1:0", Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, OnRefused: refused.add})
	wantRefused(t, r.Addr())
	r.Close()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{RefusedSource}, refused.list()); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

func TestTCPDrains(t *testing.T) {
	r := run(t, Config{Addr: "127.0.0.1:0"})
	c := dial(t, r.Addr())
	wantEcho(t, c)
	r.stop()
	for { // until the port is closed
		n, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			break
		}
		n.Close()
	}
	wantEcho(t, c) // goes on
	select {
	case err := <-r.done:
		t.Fatalf("run returned %v with a connection open", err)
	default:
	}
	c.Close()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestTCPAbort(t *testing.T) {
	r := run(t, Config{Addr: "127.0.0.1:0"})
	c := dial(t, r.Addr())
	wantEcho(t, c)
	r.Abort()
	r.Abort()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
	if err := r.Run(t.Context(), nil); err != nil {
		t.Errorf("run after abort gave %v", err)
	}
}

func TestPassingErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}, true},
		{&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.ENFILE)}, true},
		{&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.ENOBUFS)}, true},
		{&net.OpError{Op: "accept", Err: syscall.ENOSPC}, true}, // of epoll_ctl
		{&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EINVAL)}, false},
		{&net.OpError{Op: "accept", Err: net.ErrClosed}, false},
	} {
		if got := passing(tt.err); got != tt.want {
			t.Errorf("passing(%v) is %v, want %v", tt.err, got, tt.want)
		}
	}
	var delays []string
	for d := nextDelay(0); len(delays) < 10; d = nextDelay(d) {
		delays = append(delays, d.String())
	}
	want := []string{"5ms", "10ms", "20ms", "40ms", "80ms", "160ms", "320ms", "640ms", "1s", "1s"}
	if diff := cmp.Diff(want, delays); diff != "" {
		t.Errorf("delays (-want +got):\n%s", diff)
	}
}
