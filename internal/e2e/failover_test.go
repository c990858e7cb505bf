//go:build linux

package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestKilledClientFailsNoGET(t *testing.T) {
	a, b := newOrigin(t, "a"), newOrigin(t, "b")
	s := startServer(t)
	stays := s.client(t, "--id", "stays", "--upstream", a.URL)
	v := newVisitor(t, s.data)
	for round := range rounds(2, 50) {
		killed := s.client(t, "--id", "killed", "--upstream", b.URL)
		s.members(t, 2, patience)

		var slowest atomic.Int64
		load := startLoad(t, 16, func(ctx context.Context) error {
			begin := time.Now()
			code, body, _, err := v.get(ctx, "www.example.com", "/")
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("%d %s", code, body)
			}
			if took := time.Since(begin).Nanoseconds(); took > slowest.Load() {
				slowest.Store(took) // to about what it is: the workers do not wait for each other
			}
			return err
		})
		before := a.requests.Load()
		until(t, "both clients carry requests", func() bool { return b.requests.Load() > 200 && a.requests.Load() > before+200 })
		killed.kill(t)
		done := load.done.Load()
		until(t, "requests go on", func() bool { return load.done.Load() > done+1000 })
		total, failures := load.stop()
		for i, f := range failures {
			if i < 5 {
				t.Errorf("round %d: %v", round, f)
			}
		}
		s.members(t, 1, 10*time.Second)
		t.Logf("round %d: %d GETs, %d failed, the slowest took %v", round, total, len(failures), time.Duration(slowest.Load()))
		// Another client answers what can be asked twice: nobody waits until the dead one is given up.
		if took := time.Duration(slowest.Load()); took > 5*time.Second {
			t.Errorf("round %d: a GET took %v", round, took)
		}
		b.requests.Store(0)
	}
	if code := stays.stop(t); code != 0 {
		t.Errorf("the client that stays ended with exit code %d", code)
	}
}

// load runs something again and again in several workers.
type load struct {
	cancel   context.CancelFunc
	wait     sync.WaitGroup
	done     atomic.Int64
	mu       sync.Mutex
	failures []error
}

func startLoad(t *testing.T, workers int, once func(context.Context) error) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	for range workers {
		l.wait.Go(func() {
			for ctx.Err() == nil {
				err := once(context.WithoutCancel(ctx)) // the last one is let finish
				if err != nil {
					l.mu.Lock()
					l.failures = append(l.failures, err)
					l.mu.Unlock()
				}
				l.done.Add(1)
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

// stop waits for the workers, and returns how often they ran and what failed.
func (l *load) stop() (total int64, failures []error) {
	l.cancel()
	l.wait.Wait()
	return l.done.Load(), l.failures
}

// until waits for a condition of the test's own.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	eventually(t, patience, what, func(context.Context) error {
		if !met() {
			return errors.New("not yet")
		}
		return nil
	})
}

// A ledger is a TCP service that echoes a nonce, and remembers each that came.
type ledger struct {
	net.Listener
	mu    sync.Mutex
	seen  map[string]int
	total atomic.Int64
	wait  sync.WaitGroup
}

const nonceSize = 26

func startLedger(t *testing.T) *ledger {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &ledger{Listener: l, seen: map[string]int{}}
	b.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.wait.Go(func() { b.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); b.wait.Wait() })
	return b
}

func (l *ledger) serve(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	var nonce [nonceSize]byte
	if _, err := io.ReadFull(c, nonce[:]); err != nil {
		return
	}
	l.mu.Lock()
	l.seen[string(nonce[:])]++
	l.mu.Unlock()
	l.total.Add(1)
	_, _ = c.Write(nonce[:]) // the visitor sees what is missing
}

func (l *ledger) count(nonce string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[nonce]
}

// visit is one TCP connection of a visitor, which sends a nonce and wants it back.
type visit struct {
	nonce string
	begun time.Time
	took  time.Duration
	by    string // the name of who answered, where it has one
	err   error
}

// visitLedger waits so long at most.
func visitLedger(addr string, within time.Duration) visit {
	v := visit{nonce: rand.Text(), begun: time.Now()}
	v.err = func() error {
		c, err := net.DialTimeout("tcp", addr, within)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(v.begun.Add(within)) // fails only on a closed connection
		if _, err := io.WriteString(c, v.nonce); err != nil {
			return err
		}
		back, err := io.ReadAll(io.LimitReader(c, 2*nonceSize))
		if err == nil && string(back) != v.nonce {
			err = fmt.Errorf("got %q back and a clean end, sent %q", back, v.nonce)
		}
		return err
	}()
	v.took = time.Since(v.begun)
	return v
}

func TestKilledClientFailsOnlyWhatItWasSent(t *testing.T) {
	const workers = 16
	first, second := startLedger(t), startLedger(t)
	s := startServer(t)
	tunnel := freeAddr(t)
	s.client(t, "--id", "stays", "--upstream", port(t, tunnel)+"="+first.Addr().String())
	for round := range rounds(2, 50) {
		killed := s.client(t, "--id", "killed", "--upstream", port(t, tunnel)+"="+second.Addr().String())
		s.members(t, 2, patience)
		accepts(t, "tcp", tunnel)

		var mu sync.Mutex
		var visits []visit
		load := startLoad(t, workers, func(context.Context) error {
			v := visitLedger(tunnel, answerTime)
			mu.Lock()
			visits = append(visits, v)
			mu.Unlock()
			return nil
		})
		before := second.total.Load()
		until(t, "both clients carry connections", func() bool { return second.total.Load() > before+200 })
		killed.kill(t)
		dead := time.Now()
		done := load.done.Load()
		until(t, "connections go on", func() bool { return load.done.Load() > done+500 })
		load.stop()

		failed := 0
		for _, v := range visits {
			if n := first.count(v.nonce) + second.count(v.nonce); n > 1 {
				t.Errorf("round %d: a visitor's bytes came to %d services", round, n)
			} else if v.err == nil && n != 1 {
				t.Errorf("round %d: a visit succeeded that came to no service", round)
			}
			if v.err == nil {
				continue
			}
			failed++
			// What began when the client was dead can have sent it nothing.
			if v.begun.After(dead) {
				t.Errorf("round %d: a visit that began %v after the kill failed: %v", round, v.begun.Sub(dead), v.err)
			}
			if first.count(v.nonce) > 0 {
				t.Errorf("round %d: a visit to the client that stays failed: %v", round, v.err)
			}
		}
		if failed > workers {
			t.Errorf("round %d: %d visits failed, but only %d were open at the kill", round, failed, workers)
		}
		t.Logf("round %d: %d visits, %d of those open at the kill failed", round, len(visits), failed)
		s.members(t, 1, 10*time.Second)
	}
	s.kill(t) // it would wait for connections of the killed clients, which may come back
}

func TestServerRestartBringsAllClientsBack(t *testing.T) {
	const clients = 10
	s := startServer(t)
	o := newOrigin(t, "a")
	for i := range clients {
		s.client(t, "--id", fmt.Sprintf("c%d", i), "--upstream", fmt.Sprintf("h%d.example.com=%s", i, o.URL))
	}
	s.members(t, clients, patience)
	v := newVisitor(t, s.data)
	for _, end := range []struct {
		name string
		end  func()
	}{
		{"SIGTERM", func() {
			if code := s.stop(t); code != 0 {
				t.Errorf("after SIGTERM: exit code %d", code)
			}
		}},
		{"SIGKILL", func() { s.kill(t) }},
	} {
		for range rounds(1, 20) {
			end.end()
			v.client.CloseIdleConnections()
			s.again(t)
			took := s.members(t, clients, 5*time.Second)
			t.Logf("after %s: all %d clients are back %v after the server was ready", end.name, clients, took)
			for i := range clients {
				v.must200(t, fmt.Sprintf("h%d.example.com", i), "/")
			}
		}
	}
}

func TestClientDeathClosesItsPort(t *testing.T) {
	s := startServer(t)
	tunnel := freeAddr(t)
	c := s.client(t, "--upstream", port(t, tunnel)+"="+startLedger(t).Addr().String())
	accepts(t, "tcp", tunnel)
	if v := visitLedger(tunnel, patience); v.err != nil { // the connection before it has ended too
		t.Fatal(v.err)
	}
	c.kill(t)
	took := eventually(t, 10*time.Second, "the port closes", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", tunnel)
		if err == nil {
			conn.Close()
			return errors.New("it is open")
		}
		return nil
	})
	t.Logf("closed %v after the kill", took)
}
