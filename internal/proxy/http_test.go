package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"culvert/internal/hostname"
	"culvert/internal/router"
	"culvert/internal/upstream"
)

func TestForwardingHeadersAreOurs(t *testing.T) {
	type seen struct{ For, Host, Proto, RequestID []string }
	got := make(chan http.Header, 1)
	host := make(chan string, 1)
	s := newSite(t, nil, member(t, func(_ http.ResponseWriter, r *http.Request) {
		got <- r.Header
		host <- r.Host
	}))
	spellings := []string{
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Prefix",
		"x-forwarded-for", "X_Forwarded_For", "X_FORWARDED_HOST", "X-Forwarded_Proto", "Forwarded", "FORWARDED",
		"X-Real-Ip", "X_Real_IP", "x-real_ip", "X_Request_Id",
	}
	for _, name := range spellings {
		for _, tt := range []struct {
			name string
			send string
		}{
			{"once", name + ": evil\r\n"},
			{"twice", name + ": evil\r\n" + name + ": evil2\r\n"},
			{"empty", name + ":\r\n"},
			{"named in Connection", "Connection: " + name + "\r\n" + name + ": evil\r\n"},
			{"ours named in Connection", "Connection: x-forwarded-for, X-Forwarded-Host, x-request-id\r\n" + name + ": evil\r\n"},
		} {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				raw(t, s, "GET / HTTP/1.1\r\nHost: app.example.com\r\n"+tt.send+"\r\n")
				h := <-got
				if h := <-host; h != "app.example.com" {
					t.Errorf("host is %q", h)
				}
				want := seen{For: []string{"127.0.0.1"}, Host: []string{"app.example.com"}, Proto: []string{"http"}, RequestID: h["X-Request-Id"]}
				if diff := cmp.Diff(want, seen{h["X-Forwarded-For"], h["X-Forwarded-Host"], h["X-Forwarded-Proto"], h["X-Request-Id"]}); diff != "" {
					t.Errorf("headers (-want +got):\n%s", diff)
				}
				if len(h["X-Request-Id"]) != 1 || len(h["X-Request-Id"][0]) != 16 {
					t.Errorf("request id is %q, want one of ours", h["X-Request-Id"])
				}
				for k, v := range h {
					if strings.Contains(strings.Join(v, " "), "evil") {
						t.Errorf("the service saw %s: %q", k, v)
					}
				}
			})
		}
	}
}

// raw sends bytes and reads one answer.
func raw(t *testing.T, s *site, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestWhatPassesAsItIs(t *testing.T) {
	type seen struct{ URI, Agent, Encoding, Custom, ID string }
	got := make(chan seen, 1)
	s := newSite(t, nil, member(t, func(_ http.ResponseWriter, r *http.Request) {
		got <- seen{r.RequestURI, r.Header.Get("User-Agent"), r.Header.Get("Accept-Encoding"), r.Header.Get("X-Custom"), r.Header.Get("X-Request-Id")}
	}))
	for _, uri := range []string{"/", "/a%2Fb/../c?x=1;y=2&%zz", "/?a=b&&c", "/über", "//double//slash"} {
		raw(t, s, "GET "+uri+" HTTP/1.1\r\nHost: x\r\nX-Custom: 1\r\nX-Request-Id: abc-1\r\n\r\n")
		want := seen{URI: strings.ReplaceAll(uri, "ü", "%C3%BC"), Custom: "1", ID: "abc-1"}
		if diff := cmp.Diff(want, <-got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", uri, diff)
		}
	}
}

func TestUpgradeToHTTP2IsTakenOut(t *testing.T) {
	got := make(chan http.Header, 1)
	s := newSite(t, nil, member(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	for _, upgrade := range []string{"h2c", "H2C", "websocket, h2c"} {
		raw(t, s, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "+upgrade+"\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
		h := <-got
		for _, name := range []string{"Upgrade", "Connection", "Http2-Settings"} {
			if v, ok := h[name]; ok {
				t.Errorf("upgrade %s: the service saw %s: %q", upgrade, name, v)
			}
		}
	}
}

func TestWebSocket(t *testing.T) {
	s := newSite(t, nil, member(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		for {
			kind, p, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, p); err != nil {
				t.Error(err)
				return
			}
		}
	}))
	c, _, err := websocket.Dial(t.Context(), s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, words := range []string{"hello", strings.Repeat("x", 30_000)} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(words)); err != nil {
			t.Fatal(err)
		}
		if _, p, err := c.Read(t.Context()); err != nil || string(p) != words {
			t.Fatalf("read %d bytes, %v, want %d", len(p), err, len(words))
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

func TestServerSentEventsArriveAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header map[string]string
	}{
		{"an event stream", map[string]string{"Content-Type": "text/event-stream"}},
		{"any stream", nil},
		{"an answer of known length", map[string]string{"Content-Length": "24"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			next := make(chan struct{})
			s := newSite(t, nil, member(t, func(w http.ResponseWriter, r *http.Request) {
				for k, v := range tt.header {
					w.Header().Set(k, v)
				}
				for i := range 3 {
					fmt.Fprintf(w, "data: %d\n", i)
					_ = http.NewResponseController(w).Flush()
					select { // nothing more until the visitor has read this one
					case <-next:
					case <-r.Context().Done():
						return
					}
				}
			}))
			begun := time.Now()
			res, err := s.visitor.Get(s.url)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			lines := bufio.NewScanner(res.Body)
			for i := range 3 {
				if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) {
					t.Fatalf("event %d: read %q, %v", i, lines.Text(), lines.Err())
				}
				next <- struct{}{}
			}
			if took := time.Since(begun); took > 5*time.Second { // what is flushed by a timer comes as late as that
				t.Errorf("three events took %s", took)
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	t.Run("the service wants the body", func(t *testing.T) {
		s := newSite(t, nil, member(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		r := bufio.NewReader(c)
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != http.StatusContinue {
			t.Fatalf("got %v, %v, want 100", res, err)
		}
		fmt.Fprint(c, "hello")
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("got %v, %v, want 200", res, err)
		}
		if p, err := io.ReadAll(res.Body); err != nil || string(p) != "hello" {
			t.Errorf("read %q, %v", p, err)
		}
	})
	t.Run("the service refuses before the body", func(t *testing.T) {
		s := newSite(t, nil, member(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusExpectationFailed) }))
		res := raw(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		if res.StatusCode != http.StatusExpectationFailed {
			t.Errorf("got %d, want 417 and no 100", res.StatusCode)
		}
	})
}

func TestEarlyHintsPass(t *testing.T) {
	s := newSite(t, nil, member(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
	}))
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(c)
	for _, want := range []int{http.StatusEarlyHints, http.StatusAccepted} {
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != want {
			t.Fatalf("got %v, %v, want %d", res, err, want)
		}
	}
}

func TestTrailers(t *testing.T) {
	got := make(chan http.Header, 1)
	s := newSite(t, nil, member(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-Announced", "1")
		w.Header().Set(http.TrailerPrefix+"X-Surprise", "2")
		got <- r.Trailer
	}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, io.MultiReader(strings.NewReader("body")))
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{"X-Sum": {"abc"}, "X-Forwarded-For": {"evil"}, "X-Real-Ip": {"evil"}}
	res, err := s.visitor.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if p, err := io.ReadAll(res.Body); err != nil || string(p) != "body" {
		t.Errorf("read %q, %v", p, err)
	}
	if diff := cmp.Diff(http.Header{"X-Announced": {"1"}, "X-Surprise": {"2"}}, res.Trailer); diff != "" {
		t.Errorf("the visitor's trailers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(http.Header{"X-Sum": {"abc"}}, <-got); diff != "" {
		t.Errorf("the service's trailers (-want +got):\n%s", diff)
	}
}

func TestH2C(t *testing.T) {
	ln := listen(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Proto)
		_ = http.NewResponseController(w).Flush() // an answer of known length has no trailers in HTTP/1.1
		_, _ = io.Copy(w, r.Body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln)
	}()
	s := newSite(t, nil, static(ln.Addr().String(), upstream.H2C))
	for range 3 {
		res, body := s.do(t, http.MethodPost, "/", []byte("ping"), http.Header{"Te": {"trailers"}})
		if res.Header.Get("X-Proto") != "HTTP/2.0" || body != "ping" || res.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("got %s %q and trailers %v", res.Header.Get("X-Proto"), body, res.Trailer)
		}
	}
	s.Close()
	_ = srv.Close()
	<-served
}

// A service may answer while the request is still being sent; neither side may be cut.
func TestBothWaysAtOnce(t *testing.T) {
	s := newSite(t, nil, member(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		buf := make([]byte, 64)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	}))
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, body)
	if err != nil {
		t.Fatal(err)
	}
	go func() { fmt.Fprint(send, "0") }()
	res, err := s.visitor.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for i := range 5 {
		p := make([]byte, 1)
		if _, err := io.ReadFull(res.Body, p); err != nil || string(p) != fmt.Sprint(i) {
			t.Fatalf("read %q, %v, want %d", p, err, i)
		}
		if i < 4 {
			fmt.Fprint(send, i+1)
		}
	}
	send.Close()
	if p, err := io.ReadAll(res.Body); err != nil || len(p) != 0 {
		t.Errorf("read %q, %v, want an end", p, err)
	}
}

func TestAnswerThatBreaksOffNeverLooksComplete(t *testing.T) {
	for _, tt := range []struct{ name, head string }{
		{"of known length", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"},
		{"in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"},
		{"to the end of the connection", "HTTP/1.1 200 OK\r\n\r\nhalf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			read := make(chan struct{})
			s := newSite(t, nil, static(service(t, func(c *net.TCPConn) {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, tt.head)
				<-read
				_ = c.SetLinger(0)
			}), upstream.HTTP1))
			res, err := s.visitor.Get(s.url)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			_, err = io.ReadFull(res.Body, make([]byte, 4))
			close(read)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(res.Body); err == nil {
				t.Error("the visitor read a whole answer")
			}
		})
	}
}

// route routes hosts to upstreams by name.
func route(t *testing.T, s *site, hosts map[string]*upstream.Upstream) {
	t.Helper()
	var routes []router.HTTPRoute
	for host := range hosts {
		p, err := hostname.ParsePattern(host)
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, router.HTTPRoute{Host: p, Upstream: host})
	}
	table, err := router.NewHTTP(routes)
	if err != nil {
		t.Fatal(err)
	}
	s.SetRoutes(table, hosts)
}

func TestAnswersOfOurOwn(t *testing.T) {
	hangs := &told{name: "hangs", dial: func(ctx context.Context, _ *upstream.Visit) (upstream.Dialed, error) {
		return upstream.Dialed{}, &upstream.DialError{Member: "secret.internal", Reason: upstream.TimedOut, Err: context.DeadlineExceeded}
	}}
	s := newServer(t, nil)
	route(t, s, map[string]*upstream.Upstream{
		"empty.example.com":   upstreamOf(),
		"refused.example.com": upstreamOf(static(closedPort, upstream.HTTP1)),
		"slow.example.com":    upstreamOf(hangs),
		"full.example.com":    upstreamOf(failing("secret.internal", upstream.Overloaded, false)),
		"dead.example.com":    upstreamOf(static(service(t, func(c *net.TCPConn) { _, _ = http.ReadRequest(bufio.NewReader(c)) }), upstream.HTTP1)),
	})
	for _, tt := range []struct {
		name, request string
		want          int
	}{
		{"a host never offered", "GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n", 404},
		{"a host whose clients are away", "GET / HTTP/1.1\r\nHost: EMPTY.example.com:80\r\n\r\n", 503},
		{"a service that refuses", "GET / HTTP/1.1\r\nHost: refused.example.com\r\n\r\n", 502},
		{"a service that breaks off", "POST / HTTP/1.1\r\nHost: dead.example.com\r\nContent-Length: 1\r\n\r\nx", 502},
		{"a service that does not answer", "GET / HTTP/1.1\r\nHost: slow.example.com\r\n\r\n", 504},
		{"a service with too many connections", "GET / HTTP/1.1\r\nHost: full.example.com\r\n\r\n", 503},
		{"no host", "GET / HTTP/1.0\r\n\r\n", 400},
		{"a bad host", "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", 400},
		{"a forward proxy's request", "CONNECT other.example.com:443 HTTP/1.1\r\nHost: other.example.com:443\r\n\r\n", 405},
	} {
		for _, accept := range []struct{ name, header, kind string }{
			{"text", "", "text/plain; charset=utf-8"},
			{"json", "application/json, text/plain;q=0.5", "application/json"},
			{"browser", "text/html,application/json", "text/plain; charset=utf-8"},
		} {
			t.Run(tt.name+" as "+accept.name, func(t *testing.T) {
				req := tt.request
				if accept.header != "" {
					req = strings.Replace(req, "\r\n", "\r\nAccept: "+accept.header+"\r\n", 1)
				}
				res := raw(t, s, req)
				p, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != tt.want || res.Header.Get("Content-Type") != accept.kind {
					t.Errorf("got %d %s %q, %v, want %d as %s", res.StatusCode, res.Header.Get("Content-Type"), p, err, tt.want, accept.kind)
				}
				if id := res.Header.Get("X-Request-Id"); len(id) != 16 || !strings.Contains(string(p), id) {
					t.Errorf("request id %q is not in %q", id, p)
				}
				if strings.Contains(string(p), "127.0.0.1") || strings.Contains(string(p), "internal") {
					t.Errorf("the answer tells of the inside: %q", p)
				}
			})
		}
	}
}

func TestRoutesMayBeSetLater(t *testing.T) {
	s := newServer(t, nil)
	if res, _ := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("got %d before there are routes, want 404", res.StatusCode)
	}
	route(t, s, map[string]*upstream.Upstream{"*": upstreamOf(member(t, func(http.ResponseWriter, *http.Request) {}))})
	if res, _ := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusOK {
		t.Errorf("got %d after routes were set, want 200", res.StatusCode)
	}
}

func TestRequestsTakeTurns(t *testing.T) {
	var counts [3]atomic.Int64
	var members []upstream.Member
	for i := range counts {
		members = append(members, member(t, func(http.ResponseWriter, *http.Request) { counts[i].Add(1) }))
	}
	s := newSite(t, nil, members...)
	for range 30 {
		s.do(t, http.MethodGet, "/", nil, nil)
	}
	for i := range counts {
		if n := counts[i].Load(); n != 10 {
			t.Errorf("member %d got %d requests, want 10", i, n)
		}
	}
}
