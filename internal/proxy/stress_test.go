package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"

	"culvert/internal/upstream"
)

// ledger notes what services ran, by request.
type ledger struct {
	mu  sync.Mutex
	ran map[string]int
}

func (l *ledger) add(id string) {
	l.mu.Lock()
	l.ran[id]++
	l.mu.Unlock()
}

// moody serves requests and, at random, closes or resets its connection before, instead of or after an answer.
func moody(t *testing.T, l *ledger, random func(int) int) upstream.Member {
	return static(service(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			if random(8) == 0 {
				return // an idle connection is closed
			}
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			l.add(req.URL.Path)
			switch random(10) {
			case 0:
				_ = c.SetLinger(0)
				return
			case 1:
				_, _ = io.WriteString(c, "HTTP/1.1 2")
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	}), upstream.HTTP1)
}

// Whatever members do, a request that may have an effect runs at most once, and exactly once if it is answered well.
func TestAtMostOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	random := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(n)
	}
	l := &ledger{ran: map[string]int{}}
	s := newSite(t, nil, moody(t, l, random), static(closedPort, upstream.HTTP1), moody(t, l, random), moody(t, l, random))
	methods := []string{"POST", "PUT", "PATCH", "DELETE"}
	failed := 0
	var visitors sync.WaitGroup
	for v := range 8 {
		visitors.Go(func() {
			for i := range 100 {
				id := fmt.Sprintf("/%d-%d", v, i)
				req, err := http.NewRequestWithContext(t.Context(), methods[i%len(methods)], s.url+id, bytes.NewReader(make([]byte, random(3)*10_000)))
				if err != nil {
					t.Error(err)
					return
				}
				req.GetBody = nil
				if i%5 == 0 {
					req.Header.Set("Idempotency-Key", id)
				}
				res, err := s.visitor.Transport.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				l.mu.Lock()
				ran := l.ran[id]
				if res.StatusCode != http.StatusNoContent {
					failed++
				}
				l.mu.Unlock()
				if ran > 1 || res.StatusCode == http.StatusNoContent && ran != 1 {
					t.Errorf("%s %s ran %d times and was answered with %d", req.Method, id, ran, res.StatusCode)
				}
			}
		})
	}
	visitors.Wait()
	for id, n := range l.ran {
		if n > 1 {
			t.Errorf("%s ran %d times in the end", id, n)
		}
	}
	t.Logf("%d of 800 requests failed", failed)
}
