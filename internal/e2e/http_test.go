//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
)

// offerHTTP starts a server and a client that offers a web server for every host, and returns a visitor of it.
func offerHTTP(t *testing.T, service string) (s *server, c *process, v *visitor) {
	t.Helper()
	s = startServer(t)
	c = s.clientProgram(t, "http client", "--upstream", "http://"+service)
	v = newVisitor(t, s.data)
	s.members(t, 1, patience)
	return s, c, v
}

func TestHTTPTunnelCarriesNginx(t *testing.T) {
	need(t, "nginx")
	root := t.TempDir()
	page := strings.Repeat("<p>culvert</p>\n", 10_000)
	write(t, root, "page.html", page, 0o644)
	service := startNginx(t, root)
	s, c, v := offerHTTP(t, service)
	direct := newVisitor(t, service)

	for _, c := range []struct {
		name, method, path string
		header             http.Header
	}{
		{"a page", http.MethodGet, "/page.html", nil},
		{"its head", http.MethodHead, "/page.html", nil},
		{"a part of it", http.MethodGet, "/page.html", http.Header{"Range": {"bytes=100-199"}}},
		{"two parts of it", http.MethodGet, "/page.html", http.Header{"Range": {"bytes=0-9,20-29"}}},
		{"it unless unchanged", http.MethodGet, "/page.html", http.Header{"If-Modified-Since": {time.Now().UTC().Format(http.TimeFormat)}}},
		{"it compressed", http.MethodGet, "/page.html", http.Header{"Accept-Encoding": {"gzip"}}},
		{"what is missing", http.MethodGet, "/missing", nil},
		{"a method that is not allowed", http.MethodDelete, "/page.html", nil},
		{"the host it was asked for", http.MethodGet, "/plain", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, got := exchange(t, direct, c.method, c.path, c.header), exchange(t, v, c.method, c.path, c.header)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("directly (-) and through the tunnel (+):\n%s", diff)
			}
		})
	}
	v.client.CloseIdleConnections()
	s.settlesWithout(t, c)
}

// answer is what a visitor sees of an exchange.
type answer struct {
	Code   int
	Header http.Header
	Body   string
}

// exchange leaves out what differs from one answer to the next in any case.
func exchange(t *testing.T, v *visitor, method, path string, header http.Header) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+v.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "www.example.com"
	r.Header = header.Clone()
	resp, err := v.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	text := body.String()
	if boundary, ok := strings.CutPrefix(resp.Header.Get("Content-Type"), "multipart/byteranges; boundary="); ok {
		text = strings.ReplaceAll(text, boundary, "BOUNDARY")
		resp.Header.Set("Content-Type", "multipart/byteranges; boundary=BOUNDARY")
	}
	for _, h := range []string{"Date", "X-Request-Id", "Connection"} {
		resp.Header.Del(h)
	}
	return answer{resp.StatusCode, resp.Header, text}
}

func TestHTTPTunnelUnderLoad(t *testing.T) {
	need(t, "nginx", "wrk")
	s, c, _ := offerHTTP(t, startNginx(t, t.TempDir()))
	out := must(t, program{argv: []string{"wrk", "-t1", "-c32", "-d2s", "--latency", "http://" + s.data + "/plain"}})
	t.Logf("wrk, 32 connections:\n%s", out)
	for _, bad := range []string{"Socket errors", "Non-2xx"} {
		if strings.Contains(out, bad) {
			t.Errorf("wrk reports %s", bad)
		}
	}
	s.settlesWithout(t, c)
}

func TestHTTPTunnelReplacesForwardedHeaders(t *testing.T) {
	s, _, v := offerHTTP(t, newOrigin(t, "a").addr())
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.data+"/headers", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "App.Example.com:8000"
	for _, forged := range []string{
		"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-Ip", "Forwarded", "X_Forwarded_For", "X_Real_Ip",
	} {
		r.Header[forged] = []string{"203.0.113.7"}
	}
	resp, err := v.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := map[string]string{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		got[name] = value
	}
	for name, want := range map[string]string{
		"Host": "App.Example.com:8000", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "App.Example.com:8000",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	for name, value := range got {
		if strings.Contains(value, "203.0.113.7") {
			t.Errorf("the visitor's own %s: %s reached the origin", name, value)
		}
	}
}

func TestHTTPTunnelEchoesWebSocket(t *testing.T) {
	s, _, _ := offerHTTP(t, newOrigin(t, "a").addr())
	base := s.resources(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "ws://"+s.data+"/echo", nil)
	if err != nil {
		t.Fatalf("dial: %v (%v)", err, resp)
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	big := make([]byte, 1<<20)
	_, _ = rand.Read(big) // never fails
	for _, message := range []struct {
		kind websocket.MessageType
		data []byte
	}{
		{websocket.MessageText, []byte("hello")},
		{websocket.MessageBinary, []byte{}},
		{websocket.MessageBinary, big},
		{websocket.MessageText, []byte("bye")},
	} {
		if err := c.Write(ctx, message.kind, message.data); err != nil {
			t.Fatal(err)
		}
		kind, data, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if kind != message.kind || !bytes.Equal(data, message.data) {
			t.Errorf("sent %v of %d bytes, got %v of %d bytes", message.kind, len(message.data), kind, len(data))
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close handshake: %v", err)
	}
	s.settles(t, base)
}

func TestHTTPTunnelSendsEventsAtOnce(t *testing.T) {
	o := newOrigin(t, "a")
	s, _, v := offerHTTP(t, o.addr())
	base := s.resources(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.data+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := v.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// The origin sends an event only when the one before has arrived here: none can wait for the next.
	lines := bufio.NewScanner(resp.Body)
	var slowest time.Duration
	for i := range 100 {
		begin := time.Now()
		if i > 0 {
			select {
			case o.next <- struct{}{}:
			case <-ctx.Done():
				t.Fatal("the origin's handler is gone")
			}
		}
		for lines.Scan() && lines.Text() == "" {
		}
		if want := fmt.Sprintf("data: event %d", i); lines.Text() != want {
			t.Fatalf("got %q, want %q (%v)", lines.Text(), want, lines.Err())
		}
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("slowest of 100 events: %v", slowest)
	if slowest > 5*time.Second {
		t.Errorf("an event took %v", slowest)
	}
	resp.Body.Close()
	cancel()
	s.settles(t, base)
}

func TestHTTPRoutesByHostAndPath(t *testing.T) {
	s := startServer(t)
	site := t.TempDir()
	write(t, site, "index.html", "from a folder\n", 0o644)
	socket := filepath.Join(t.TempDir(), "app.sock")
	serveUnix(t, socket, "from a socket\n")
	app, api, dev, rest := newOrigin(t, "app"), newOrigin(t, "api"), newOrigin(t, "dev"), newOrigin(t, "rest")
	s.client(t, "--upstream", "app.example.com="+app.URL, "--upstream", "app.example.com/api="+api.URL)
	s.client(t, "--upstream", "*.dev.example.com="+dev.URL+",files.example.com=file:"+site+",unix.example.com=unix:"+socket)
	third := s.client(t, "--upstream", rest.URL)
	s.members(t, 3, patience)
	v := newVisitor(t, s.data)
	for _, c := range []struct{ host, path, want string }{
		{"app.example.com", "/", "app GET /\n"},
		{"APP.example.com.:8000", "/x", "app GET /x\n"},
		{"app.example.com", "/api", "api GET /api\n"},
		{"app.example.com", "/api/v1", "api GET /api/v1\n"},
		{"app.example.com", "/apiary", "app GET /apiary\n"},
		{"a.dev.example.com", "/", "dev GET /\n"},
		{"a.b.dev.example.com", "/", "dev GET /\n"},
		{"dev.example.com", "/", "rest GET /\n"},
		{"files.example.com", "/", "from a folder\n"},
		{"unix.example.com", "/", "from a socket\n"},
		{"anything.example.org", "/", "rest GET /\n"},
		{"127.0.0.1", "/", "rest GET /\n"},
	} {
		if got := v.must200(t, c.host, c.path); got != c.want {
			t.Errorf("%s%s: got %q, want %q", c.host, c.path, got, c.want)
		}
	}
	third.stop(t)
	s.members(t, 2, patience)
	v.answers(t, "anything.example.org", "/", http.StatusServiceUnavailable) // offered before, away now
}

func TestHTTPErrorsOfAServerWithoutClients(t *testing.T) {
	s := startServer(t)
	v := newVisitor(t, s.data)
	code, body, _, err := v.get(t.Context(), "never.example.com", "/")
	if err != nil || code != http.StatusNotFound {
		t.Errorf("a host never offered: %d %v", code, err)
	}
	if strings.Contains(body, s.control) || strings.Contains(body, s.state) {
		t.Errorf("the answer tells of the inside: %q", body)
	}
	c := s.client(t, "--upstream", "gone.example.com=http://"+freeAddr(t))
	s.members(t, 1, patience)
	v.answers(t, "gone.example.com", "/", http.StatusBadGateway) // nothing listens there
	c.stop(t)
	v.answers(t, "gone.example.com", "/", http.StatusServiceUnavailable)
}

// serveUnix answers every request on a Unix socket with a text.
func serveUnix(t *testing.T, socket, text string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, text)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
}
