package entrypoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type runningHTTP struct {
	*HTTP
	stop context.CancelFunc
	done chan error
}

func runHTTP(t *testing.T, cfg HTTPConfig, h http.HandlerFunc) *runningHTTP {
	t.Helper()
	cfg.Addr, cfg.Log = "127.0.0.1:0", quiet()
	ep, err := ListenHTTP(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &runningHTTP{ep, stop, make(chan error, 1)}
	go func() { r.done <- ep.Run(ctx) }()
	t.Cleanup(func() {
		ep.Abort()
		stop()
	})
	return r
}

func ask(t *testing.T, c net.Conn, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
}

func answer(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestHTTPServes(t *testing.T) {
	r := runHTTP(t, HTTPConfig{}, func(http.ResponseWriter, *http.Request) {})
	c := dial(t, r.Addr())
	ask(t, c, "/")
	if res := answer(t, c); res.StatusCode != http.StatusOK {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestHTTPRefuses(t *testing.T) {
	denied := runHTTP(t, HTTPConfig{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, nil)
	wantRefused(t, denied.Addr())
}

func TestHTTPHeadLimits(t *testing.T) {
	var refused reasons
	none := func(http.ResponseWriter, *http.Request) { t.Error("a request came through") }
	hasty := runHTTP(t, HTTPConfig{ReadHeaderTimeout: 20 * time.Millisecond, OnRefused: refused.add}, none)
	slow := dial(t, hasty.Addr())
	_, _ = io.WriteString(slow, "GET / HTTP/1.1\r\nHost:")
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Errorf("a slow head ended with %v, want an end", err)
	}
	hasty.stop()
	<-hasty.done
	r := runHTTP(t, HTTPConfig{OnRefused: refused.add}, none)
	big := dial(t, r.Addr())
	go func() {
		_, _ = io.WriteString(big, "GET / HTTP/1.1\r\nHost: x\r\nA: "+strings.Repeat("a", 80<<10)+"\r\n\r\n")
	}()
	if res := answer(t, big); res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large head got %d, want 431", res.StatusCode)
	}
	garbage := dial(t, r.Addr())
	_, _ = io.WriteString(garbage, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
	if res := answer(t, garbage); res.StatusCode != http.StatusBadRequest {
		t.Errorf("garbage got %d, want 400", res.StatusCode)
	}
	r.stop()
	<-r.done
	if diff := cmp.Diff([]string{RefusedHead, RefusedHead, RefusedHead}, refused.list()); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

func TestWholeHeadsAreNotRefused(t *testing.T) {
	var refused reasons
	r := runHTTP(t, HTTPConfig{OnRefused: refused.add}, func(http.ResponseWriter, *http.Request) {})
	c := dial(t, r.Addr())
	for range 2 {
		ask(t, c, "/")
		answer(t, c)
	}
	dial(t, r.Addr()).Close() // says nothing
	r.stop()
	<-r.done
	if got := refused.list(); len(got) > 0 {
		t.Errorf("refused: %v", got)
	}
}

// busy has one request under way, plain or upgraded.
func busy(t *testing.T, cfg HTTPConfig, path string) (r *runningHTTP, c net.Conn, finish chan struct{}) {
	begun := make(chan struct{})
	finish = make(chan struct{})
	r = runHTTP(t, cfg, func(w http.ResponseWriter, req *http.Request) {
		conn := io.Closer(io.NopCloser(nil))
		if req.URL.Path == "/upgrade" {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
			}
			conn = c
		}
		close(begun)
		select {
		case <-finish:
		case <-req.Context().Done():
		}
		conn.Close()
	})
	c = dial(t, r.Addr())
	ask(t, c, path)
	<-begun
	return r, c, finish
}

func TestHTTPDrains(t *testing.T) {
	for _, path := range []string{"/", "/upgrade"} {
		for _, tt := range []struct {
			name string
			end  func(*runningHTTP) (result func() error)
		}{
			{"by the context", func(r *runningHTTP) func() error {
				r.stop()
				return func() error { return nil }
			}},
			{"by shutdown", func(r *runningHTTP) func() error {
				done := make(chan error, 1)
				go func() { done <- r.Shutdown(context.Background()) }()
				return func() error { return <-done }
			}},
		} {
			t.Run(tt.name+" "+path, func(t *testing.T) {
				r, c, finish := busy(t, HTTPConfig{}, path)
				result := tt.end(r)
				for { // until the port is closed
					n, err := net.Dial("tcp", r.Addr().String())
					if err != nil {
						break
					}
					n.Close()
				}
				select {
				case err := <-r.done:
					t.Fatalf("run returned %v with a request under way", err)
				default:
				}
				close(finish)
				if path == "/" {
					if res := answer(t, c); res.StatusCode != http.StatusOK {
						t.Errorf("got %d", res.StatusCode)
					}
				}
				if err := <-r.done; err != nil {
					t.Errorf("run gave %v", err)
				}
				if err := result(); err != nil {
					t.Errorf("shutdown gave %v", err)
				}
			})
		}
	}
}

func TestHTTPShutdownRunsOutOfPatience(t *testing.T) {
	for _, path := range []string{"/", "/upgrade"} {
		t.Run(path, func(t *testing.T) {
			r, c, _ := busy(t, HTTPConfig{}, path)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := r.Shutdown(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("shutdown gave %v, want canceled", err)
			}
			if err := <-r.done; err != nil {
				t.Errorf("run gave %v", err)
			}
			if p, _ := io.ReadAll(c); len(p) != 0 {
				t.Errorf("read %q after an abort", p)
			}
		})
	}
}

func TestHTTPThatNeverRan(t *testing.T) {
	ep, err := ListenHTTP(HTTPConfig{Addr: "127.0.0.1:0", Log: quiet()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", ep.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	if err := ep.Run(t.Context()); err != nil {
		t.Errorf("run after shutdown gave %v", err)
	}
}
