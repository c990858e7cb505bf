package proxy

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"culvert/internal/balancer"
	"culvert/internal/hostname"
	"culvert/internal/router"
	"culvert/internal/upstream"
)

// siteOf routes every host to the upstream.
func siteOf(t testing.TB, u *upstream.Upstream) *site {
	t.Helper()
	all, err := hostname.ParsePattern("*")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := router.NewHTTP([]router.HTTPRoute{{Host: all, Upstream: "u"}})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, nil)
	s.SetRoutes(routes, map[string]*upstream.Upstream{"u": u})
	return s
}

// awaitOpen waits until the upstream has so many connections or requests. The account is settled after the visitor has all.
func awaitOpen(t testing.TB, u *upstream.Upstream, want int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		open := 0
		for _, p := range u.Places() {
			open += p.Open
		}
		if open == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d open, want %d", open, want)
		}
		runtime.Gosched()
	}
}

// slow is a service that answers when it is told to, and tells of each request that it has.
type slow struct {
	has, answer chan struct{}
}

func newSlow() *slow { return &slow{make(chan struct{}), make(chan struct{})} }

func (s *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case s.has <- struct{}{}:
	case <-r.Context().Done():
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	select {
	case <-s.answer:
	case <-r.Context().Done():
	}
	_, _ = io.WriteString(w, "done")
}

func TestRequestsHaveThePlaceUntilTheirAnswerIsThrough(t *testing.T) {
	service := newSlow()
	u := upstream.New(upstream.Config{Name: "test", Queue: upstream.Queue{Max: 1, Timeout: time.Minute}})
	u.Add(upstream.Placed{Member: member(t, service.ServeHTTP), MaxConns: 1})
	s := siteOf(t, u)
	var visitors sync.WaitGroup
	get := func() {
		visitors.Go(func() {
			if res, body := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusOK || body != "done" {
				t.Errorf("got %d %q", res.StatusCode, body)
			}
		})
	}
	get()
	<-service.has
	get()
	for u.Waiting() == 0 {
		runtime.Gosched()
	}
	if res, body := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "too many connections") {
		t.Errorf("a third request got %d %q, want 503", res.StatusCode, body)
	}
	service.answer <- struct{}{}
	<-service.has // the second, at once
	service.answer <- struct{}{}
	visitors.Wait()
	awaitOpen(t, u, 0)
	if p := u.Places()[0]; p.Total != 2 || p.Failed != 0 {
		t.Errorf("account %+v, want 2 and no failure", p)
	}
}

func TestVisitorThatLeavesTheHTTPQueue(t *testing.T) {
	service := newSlow()
	u := upstream.New(upstream.Config{Name: "test", Queue: upstream.Queue{Max: 1, Timeout: time.Minute}})
	u.Add(upstream.Placed{Member: member(t, service.ServeHTTP), MaxConns: 1})
	s := siteOf(t, u)
	var visitors sync.WaitGroup
	visitors.Go(func() { s.do(t, http.MethodGet, "/", nil, nil) })
	<-service.has
	ctx, leave := context.WithCancel(t.Context())
	visitors.Go(func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
		if res, err := s.visitor.Do(req); err == nil {
			res.Body.Close()
			t.Error("the visitor that left has an answer")
		}
	})
	for u.Waiting() == 0 {
		runtime.Gosched()
	}
	leave()
	for u.Waiting() != 0 {
		runtime.Gosched()
	}
	service.answer <- struct{}{}
	visitors.Wait()
	awaitOpen(t, u, 0)
}

func TestRequestsGoToTheLeastBusy(t *testing.T) {
	service := newSlow()
	u := upstream.New(upstream.Config{Name: "test", Policy: balancer.LeastConn})
	u.Add(upstream.Placed{Member: member(t, service.ServeHTTP)})
	u.Add(upstream.Placed{Member: member(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") })})
	s := siteOf(t, u)
	var visitors sync.WaitGroup
	visitors.Go(func() { s.do(t, http.MethodGet, "/", nil, nil) })
	<-service.has
	for range 5 {
		if _, body := s.do(t, http.MethodGet, "/", nil, nil); body != "other" {
			t.Errorf("got %q, want the answer of the member without requests", body)
		}
		awaitOpen(t, u, 1)
	}
	service.answer <- struct{}{}
	visitors.Wait()
	awaitOpen(t, u, 0)
}

func TestUpgradedConnectionHasAPlace(t *testing.T) {
	u := upstream.New(upstream.Config{Name: "test"})
	u.Add(upstream.Placed{Member: member(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		_, _, _ = c.Read(r.Context())
		_ = c.CloseNow()
	}), MaxConns: 1})
	s := siteOf(t, u)
	c, _, err := websocket.Dial(t.Context(), s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	awaitOpen(t, u, 1)
	if res, _ := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %d while the only place is taken, want 503", res.StatusCode)
	}
	_ = c.CloseNow()
	awaitOpen(t, u, 0)
}

// Failed dials for requests count like those for connections: who fails again and again is left alone.
func TestRequestsEjectWhoFails(t *testing.T) {
	bad := &counted{Member: static(closedPort, upstream.HTTP1)}
	u := upstream.New(upstream.Config{Name: "test", Retries: 1})
	u.Add(upstream.Placed{Member: bad})
	u.Add(upstream.Placed{Member: member(t, func(http.ResponseWriter, *http.Request) {})})
	s := siteOf(t, u)
	for range 20 {
		if res, _ := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusOK {
			t.Fatalf("got %d", res.StatusCode)
		}
	}
	if got := bad.dials.Load(); got != 3 {
		t.Errorf("the member that fails was asked %d times, want 3", got)
	}
	awaitOpen(t, u, 0)
	if p := u.Places()[0]; p.Failed != 3 || p.EjectedUntil.IsZero() {
		t.Errorf("its account is %+v, want 3 failures and that it is ejected", p)
	}
}

func TestRequestsAreRetriedAsOftenAsTheUpstreamSays(t *testing.T) {
	u := upstream.New(upstream.Config{Name: "test", Retries: 1, Ejection: upstream.Ejection{After: -1}})
	var all []*counted
	for range 4 {
		m := &counted{Member: static(closedPort, upstream.HTTP1)}
		all = append(all, m)
		u.Add(upstream.Placed{Member: m})
	}
	s := siteOf(t, u)
	if res, _ := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusBadGateway {
		t.Errorf("got %d, want 502", res.StatusCode)
	}
	var asked int64
	for _, m := range all {
		asked += m.dials.Load()
	}
	if asked != 2 {
		t.Errorf("%d members were asked, want 2", asked)
	}
	awaitOpen(t, u, 0)
}

func TestTCPConnectionHasAPlaceUntilItIsOver(t *testing.T) {
	u := upstream.New(upstream.Config{Name: "test", Queue: upstream.Queue{Max: 1, Timeout: time.Minute}})
	u.Add(upstream.Placed{Member: static(service(t, echo), upstream.Raw), MaxConns: 1})
	first, firstServed := visit(t, t.Context(), u)
	say(t, first, "x")
	if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	second, secondServed := visit(t, t.Context(), u)
	for u.Waiting() == 0 {
		runtime.Gosched()
	}
	first.Close()
	<-firstServed
	say(t, second, "y")
	if _, err := io.ReadFull(second, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	second.Close()
	<-secondServed
	if p := u.Places()[0]; p.Open != 0 || p.Total != 2 {
		t.Errorf("account %+v, want 2 in total and none open", p)
	}
}
