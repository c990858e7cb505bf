package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"culvert/internal/upstream"
)

// counted is a member that counts its connections.
type counted struct {
	upstream.Member
	dials atomic.Int64
}

func (m *counted) Dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	m.dials.Add(1)
	return m.Member.Dial(ctx, v)
}

func TestConnectionsAreKeptPerMember(t *testing.T) {
	a := &counted{Member: member(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a") })}
	b := &counted{Member: member(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "b") })}
	s := newSite(t, nil, a, b)
	for i := range 20 {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url, nil)
		req.Host = string(rune('a'+i)) + ".example.com" // whatever the host, the connections are the member's
		res, err := s.visitor.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	if a.dials.Load() != 1 || b.dials.Load() != 1 {
		t.Errorf("%d and %d connections for 10 requests each, want 1 and 1", a.dials.Load(), b.dials.Load())
	}
	s.Forget(a)
	for range 2 {
		s.do(t, http.MethodGet, "/", nil, nil)
	}
	if a.dials.Load() != 2 || b.dials.Load() != 1 {
		t.Errorf("%d and %d connections after one member was forgotten, want 2 and 1", a.dials.Load(), b.dials.Load())
	}
}

func TestFailedDialGoesToTheNextMember(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		for _, size := range []int{0, 5, 1 << 20} {
			var got [][]byte
			good := member(t, func(_ http.ResponseWriter, r *http.Request) {
				p, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				got = append(got, p)
			})
			s := newSite(t, nil, static(closedPort, upstream.HTTP1), good)
			body := bytes.Repeat([]byte("x"), size)
			if res, text := s.do(t, method, "/", body, nil); res.StatusCode != http.StatusOK {
				t.Errorf("%s with %d bytes: got %d %q", method, size, res.StatusCode, text)
			}
			if len(got) != 1 || !bytes.Equal(got[0], body) {
				t.Errorf("%s with %d bytes: the member got %d requests", method, size, len(got))
			}
		}
	}
}

func TestDialThatMaySentBytesIsTheLast(t *testing.T) {
	second := &counted{Member: member(t, func(http.ResponseWriter, *http.Request) {})}
	s := newSite(t, nil, failing("first", upstream.Lost, true), second)
	if res, _ := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusBadGateway || second.dials.Load() != 0 {
		t.Errorf("got %d and %d dials of the second member, want 502 and none", res.StatusCode, second.dials.Load())
	}
}

// dying reads a request and breaks off, after it has said some words.
func dying(t *testing.T, seen *atomic.Int64, words string) upstream.Member {
	return static(service(t, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		seen.Add(1)
		_, _ = io.WriteString(c, words)
	}), upstream.HTTP1)
}

func TestMemberThatDiesInFlight(t *testing.T) {
	for _, tt := range []struct {
		name   string
		method string
		body   string
		header http.Header
		words  string
		status int
		second int64 // requests at the second member
	}{
		{"GET", "GET", "", nil, "", 200, 1},
		{"HEAD", "HEAD", "", nil, "", 200, 1},
		{"OPTIONS", "OPTIONS", "", nil, "", 200, 1},
		{"TRACE", "TRACE", "", nil, "", 200, 1},
		{"GET with a body", "GET", "x", nil, "", 502, 0},
		{"POST", "POST", "x", nil, "", 502, 0},
		{"POST without a body", "POST", "", nil, "", 502, 0},
		{"POST with an idempotency key", "POST", "", http.Header{"Idempotency-Key": {"1"}, "X-Idempotency-Key": {"1"}}, "", 502, 0},
		{"PUT", "PUT", "x", nil, "", 502, 0},
		{"DELETE", "DELETE", "", nil, "", 502, 0},
		{"GET whose answer had begun", "GET", "", nil, "HTTP/1.1 20", 502, 0},
		{"GET after early hints", "GET", "", nil, "HTTP/1.1 103 Early Hints\r\n\r\n", 502, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var first, second atomic.Int64
			s := newSite(t, nil, dying(t, &first, tt.words), member(t, func(http.ResponseWriter, *http.Request) { second.Add(1) }))
			res, _ := s.do(t, tt.method, "/", []byte(tt.body), tt.header)
			if res.StatusCode != tt.status || first.Load() != 1 || second.Load() != tt.second {
				t.Errorf("got %d with %d and %d requests, want %d with 1 and %d", res.StatusCode, first.Load(), second.Load(), tt.status, tt.second)
			}
		})
	}
}

// On a connection that was used before, http.Transport would send some requests again by itself.
func TestNoRequestRunsTwiceOnAUsedConnection(t *testing.T) {
	for _, tt := range []struct {
		name   string
		method string
		body   string
		header http.Header
		want   int64
	}{
		{"POST", "POST", "x", nil, 1},
		{"POST without a body", "POST", "", nil, 1},
		{"POST with an idempotency key", "POST", "", http.Header{"Idempotency-Key": {"1"}}, 1},
		{"DELETE with the other idempotency key", "DELETE", "", http.Header{"X-Idempotency-Key": {"1"}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seen atomic.Int64
			s := newSite(t, nil, static(service(t, func(c *net.TCPConn) {
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if req.URL.Path != "/warm" {
						if req.Header.Get("Idempotency-Key") != tt.header.Get("Idempotency-Key") {
							t.Error("the key did not arrive")
						}
						seen.Add(1)
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				}
			}), upstream.HTTP1))
			s.do(t, http.MethodGet, "/warm", nil, nil)
			res, _ := s.do(t, tt.method, "/", []byte(tt.body), tt.header)
			if res.StatusCode != http.StatusBadGateway || seen.Load() != tt.want {
				t.Errorf("got %d and the request ran %d times, want 502 and %d", res.StatusCode, seen.Load(), tt.want)
			}
		})
	}
}

func TestBodyIsHeldForAConnectionThatWasDead(t *testing.T) {
	for _, size := range []int{0, 5, 20_000} {
		dead := &pooledConn{pool: new(memberPool)}
		dead.closed.Store(true)
		if n, err := dead.Write([]byte("x")); n != 0 || !errors.Is(err, net.ErrClosed) || dead.writes.Load() != 0 {
			t.Fatalf("a closed connection took %d bytes, %v", n, err)
		}
		body := bytes.Repeat([]byte("x"), size)
		held := &heldBody{src: bytes.NewReader(body)}
		for range 2 {
			v := &bodyView{held: held, attempt: &attempt{conn: dead}, in: &http.Request{}, out: &http.Request{}}
			if p, err := io.ReadAll(v); err != nil || !bytes.Equal(p, body) {
				t.Errorf("read %d bytes, %v, want %d", len(p), err, size)
			}
			_ = v.Close()
			if _, err := v.Read(make([]byte, 1)); err == nil {
				t.Error("a closed view could be read")
			}
		}
		if !held.whole() {
			t.Errorf("%d bytes are not held", size)
		}
	}
}

func TestBodyIsNotHeldOnceSomethingWasSent(t *testing.T) {
	conn := &pooledConn{pool: new(memberPool)}
	a := &attempt{conn: conn}
	held := &heldBody{src: bytes.NewReader(make([]byte, 100))}
	v := &bodyView{held: held, attempt: a, in: &http.Request{}, out: &http.Request{}}
	_, _ = v.Read(make([]byte, 10))
	if !held.whole() {
		t.Error("what was read before is not held")
	}
	conn.writes.Add(1)
	_, _ = v.Read(make([]byte, 10))
	if held.whole() || held.held != nil {
		t.Error("bytes are held that no one may send again")
	}
	large := &heldBody{src: bytes.NewReader(make([]byte, 2*maxHeld))}
	_, _ = io.Copy(io.Discard, &bodyView{held: large, attempt: &attempt{}, in: &http.Request{}, out: &http.Request{}})
	if large.whole() {
		t.Error("a body without limit is held")
	}
}
