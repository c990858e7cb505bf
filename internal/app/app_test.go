package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"culvert/internal/auth"
	"culvert/internal/client"
	"culvert/internal/config"
	"culvert/internal/control"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "a token of the tests"

// running is a server or client that runs until stop.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func start(run func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = run(ctx)
	}()
	return r
}

func (r *running) stop() error {
	r.cancel()
	<-r.done
	return r.err
}

// serverConfig is that of a mixed server on loopback with free ports. Its authority is kept in dir.
func serverConfig(dir string) config.Server {
	cfg := config.NewServer(config.Mixed)
	cfg.ControlAddr, cfg.DataAddr, cfg.ControlPort, cfg.Port = "127.0.0.1", "127.0.0.1", 0, 0
	cfg.AutoTLSPath, cfg.AutoTLSSAN = dir, []string{"127.0.0.1"}
	cfg.Token = auth.NewSecret(token)
	cfg.DrainTimeout = 5 * time.Second
	return cfg
}

var discard = slog.New(slog.DiscardHandler)

func startServer(t *testing.T, cfg config.Server) (*Server, *running) {
	t.Helper()
	s, err := NewServer(cfg, Version{"test", "sha"}, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	r := start(s.Run)
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return s, r
}

func startClient(t *testing.T, control net.Addr, upstreams ...client.Upstream) *running {
	t.Helper()
	cfg := config.NewClient(config.Mixed)
	cfg.URLs = []*url.URL{{Scheme: "wss", Host: control.String(), Path: "/connect"}}
	cfg.Token = auth.NewSecret(token)
	cfg.Upstreams = upstreams
	c, err := NewClient(cfg, Version{"test", "sha"}, discard)
	if err != nil {
		t.Fatal(err)
	}
	r := start(c.Run)
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("client: %v", err)
		}
	})
	return r
}

func upstreams(t *testing.T, specs ...string) []client.Upstream {
	t.Helper()
	var list []client.Upstream
	for _, spec := range specs {
		u, err := config.ParseUpstream(config.Mixed, spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, u...)
	}
	return list
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(15 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// service answers each line with a prefix and the line, and ends when its visitor has ended.
func service(t *testing.T, prefix string) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					fmt.Fprintf(c, "%s %s\n", prefix, lines.Text())
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Wait()
	})
	return l.Addr()
}

// nextPort is where the search for a free port goes on, so that none is given twice. It begins anywhere, for the tests
// of other packages may be looking too.
var firstPort, nextPort = rand.Uint32N(17_000), atomic.Uint32{}

// freePort is a port that nobody listens on, below those that systems give to connections and to listeners on port 0:
// these would take it before the server does.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for {
		port := uint16(15_000 + (firstPort+nextPort.Add(1))%17_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
}

// ask says a line to a port and returns the answer.
func ask(port uint16, line string) (string, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

func get(t *testing.T, s *Server, host, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTPAddr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestOneServerCarriesBothKinds(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s from %s", r.Host, r.Header.Get("X-Forwarded-For"))
	}))
	defer site.Close()
	s, _ := startServer(t, serverConfig(t.TempDir()))
	port := freePort(t)
	startClient(t, s.ControlAddr(), upstreams(t,
		"app.example.com="+site.URL, fmt.Sprintf("%d=%s", port, service(t, "echo")), "files.example.com=file:testdata/site")...)
	await(t, "the client", func() bool { return len(s.sessions.Clients()) == 1 && len(s.sessions.Clients()[0].Tunnels) == 3 })
	if code, body := get(t, s, "app.example.com", "/"); code != 200 || body != "app.example.com from 127.0.0.1" {
		t.Errorf("http: got %d %q", code, body)
	}
	if code, body := get(t, s, "files.example.com", "/hello.txt"); code != 200 || body != "hello from a folder\n" {
		t.Errorf("folder: got %d %q", code, body)
	}
	if code, _ := get(t, s, "other.example.com", "/"); code != 404 {
		t.Errorf("host never offered: got %d, want 404", code)
	}
	if answer, err := ask(port, "hi"); err != nil || answer != "echo hi" {
		t.Errorf("tcp: got %q, %v", answer, err)
	}
}

func TestPortClosesAndHostIsAwayAfterTheLastClient(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	port := freePort(t)
	c := startClient(t, s.ControlAddr(), upstreams(t, fmt.Sprintf("%d=%s", port, service(t, "echo")), "app.example.com=http://127.0.0.1:1")...)
	await(t, "the port", func() bool { _, err := ask(port, "hi"); return err == nil })
	left := time.Now()
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if code, _ := get(t, s, "app.example.com", "/"); code != 503 {
		t.Errorf("host whose client is away: got %d, want 503", code)
	}
	await(t, "the port to close", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED) // a reset is a port that is open and has no client
	})
	if took := time.Since(left); took < 2*time.Second { // how much more is the machine's matter
		t.Errorf("the port closed after %s, want 2s", took)
	}
	if code, _ := get(t, s, "app.example.com", "/"); code != 503 {
		t.Errorf("host whose client has been away for %s: got %d, want 503", time.Since(left), code)
	}
}

func TestPortThatCannotBeOpenedIsRefusedInWords(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := serverConfig(t.TempDir())
	cfg.HealthAddr = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s, _ := startServer(t, cfg)
	_, health, _ := net.SplitHostPort(cfg.HealthAddr)
	m := upstream.NewStatic(upstream.StaticConfig{Network: "tcp", Address: cfg.HealthAddr})
	for port, want := range map[string]string{
		fmt.Sprint(taken.Addr().(*net.TCPAddr).Port): "is already in use on the server; give another port",
		health: "the health port (health_addr)",
	} {
		name, err := tunnel.ParseName("tcp/" + port)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.plane.Publish(control.Offered{Name: name, Member: m}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("port %s: got %v, want %q", port, err, want)
		}
	}
}

// TestOrderlyEndLosesNothing stops the server, or the client, under a connection that is half through.
func TestOrderlyEndLosesNothing(t *testing.T) {
	for _, ends := range []string{"server", "client"} {
		t.Run(ends, func(t *testing.T) {
			s, server := startServer(t, serverConfig(t.TempDir()))
			port := freePort(t)
			c := startClient(t, s.ControlAddr(), upstreams(t, fmt.Sprintf("%d=%s", port, service(t, "echo")))...)
			await(t, "the port", func() bool { _, err := ask(port, "hi"); return err == nil })
			visitor, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			defer visitor.Close()
			answers := bufio.NewScanner(visitor)
			say := func(line string) {
				t.Helper()
				if _, err := fmt.Fprintln(visitor, line); err != nil {
					t.Fatal(err)
				}
				if !answers.Scan() || answers.Text() != "echo "+line {
					t.Fatalf("got %q, %v", answers.Text(), answers.Err())
				}
			}
			say("before")
			ending := map[string]*running{"server": server, "client": c}[ends]
			ending.cancel()
			await(t, "the end of new connections", func() bool { _, err := ask(port, "hi"); return err != nil })
			say("during")
			_ = visitor.(*net.TCPConn).CloseWrite()
			if answers.Scan() || answers.Err() != nil {
				t.Errorf("got %q, %v; want a clean end", answers.Text(), answers.Err())
			}
			ended := time.Now()
			<-ending.done
			if took := time.Since(ended); took > 5*time.Second {
				t.Errorf("%s ended %s after its last connection", ends, took)
			}
		})
	}
}

func TestListenOpensAllOrNone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := serverConfig(t.TempDir())
	cfg.Port = freePort(t)
	cfg.ControlPort = uint16(taken.Addr().(*net.TCPAddr).Port)
	s, err := NewServer(cfg, Version{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "--control-port: listen ") {
		t.Fatalf("got %v, want an error of --control-port", err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", cfg.Port))
	if err != nil {
		t.Fatalf("the http port was left open: %v", err)
	}
	l.Close()
}

func TestServerWithoutCredentialDoesNotStart(t *testing.T) {
	cfg := serverConfig(t.TempDir())
	cfg.Token = auth.Secret{}
	if _, err := NewServer(cfg, Version{}, discard); !errors.Is(err, auth.ErrNoCredential) {
		t.Errorf("got %v", err)
	}
}

// TestOrderlyEndDeliversTheTail stops the client under an answer, whose last bytes are still on their way to the server when
// the client has taken them all from its service.
func TestOrderlyEndDeliversTheTail(t *testing.T) {
	const size = 16 << 20
	s, _ := startServer(t, serverConfig(t.TempDir()))
	port := freePort(t)
	asked := make(chan struct{}, 1)
	big, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	go func() {
		for {
			c, err := big.Accept()
			if err != nil {
				return
			}
			asked <- struct{}{}
			_, _ = c.Write(make([]byte, size))
			c.Close()
		}
	}()
	c := startClient(t, s.ControlAddr(), upstreams(t, fmt.Sprintf("%d=%s", port, big.Addr()))...)
	await(t, "the client", func() bool { return len(s.sessions.Clients()) == 1 && len(s.sessions.Clients()[0].Tunnels) == 1 })
	visitor, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer visitor.Close()
	_ = visitor.(*net.TCPConn).CloseWrite()
	<-asked
	c.cancel()
	if n, err := io.Copy(io.Discard, visitor); err != nil || n != size {
		t.Errorf("got %d bytes of %d, %v", n, size, err)
	}
}
