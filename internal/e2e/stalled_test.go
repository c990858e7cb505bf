//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Strangers who connect to the control port and then stop, at any byte.

// A stall connects and stops somewhere. It returns the connection at that point.
type stall struct {
	name string
	dial func(ctx context.Context, s *server) (net.Conn, error)
	// bar is how much memory one of them may cost the server; the test fails at half as much again, since it is one run on
	// a machine that others share.
	bar int64
}

func stalls() []stall {
	return []stall{
		{"silent", stalledTCP, 16 << 10},
		{"half a ClientHello", stalledHello, 16 << 10},
		{"silent after TLS", stalledTLS(""), 40 << 10},
		{"half an HTTP header", stalledTLS("GET /connect HTTP/1.1\r\nHost: culvert\r\nUpgr"), 40 << 10},
		{"half an HTTP body", stalledTLS("POST /connect HTTP/1.1\r\nHost: culvert\r\nContent-Length: 100\r\n\r\nhalf"), 40 << 10},
		{"no hello after the upgrade", stalledUpgrade, 40 << 10},
	}
}

func stalledTCP(ctx context.Context, s *server) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.control)
}

func stalledHello(ctx context.Context, s *server) (net.Conn, error) {
	c, err := stalledTCP(ctx, s)
	if err == nil {
		_, err = c.Write([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8})
	}
	return c, err
}

func stalledTLS(send string) func(context.Context, *server) (net.Conn, error) {
	return func(ctx context.Context, s *server) (net.Conn, error) {
		c, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", s.control)
		if err == nil {
			_, err = io.WriteString(c, send)
		}
		return c, err
	}
}

func stalledUpgrade(ctx context.Context, s *server) (net.Conn, error) {
	c, err := stalledTLS("GET /connect HTTP/1.1\r\nHost: culvert\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: culvert.1\r\nAuthorization: Bearer "+s.token+"\r\n\r\n")(ctx, s)
	if err != nil {
		return c, err
	}
	answer := make([]byte, len("HTTP/1.1 101"))
	if _, err := io.ReadFull(c, answer); err != nil {
		return c, fmt.Errorf("upgrade: %w", err)
	}
	if string(answer) != "HTTP/1.1 101" {
		return c, fmt.Errorf("upgrade: %q", answer)
	}
	return c, nil
}

func TestStalledStrangersAreGoneInTime(t *testing.T) {
	count := 2000
	if raceEnabled {
		count = 100 // handshakes are slow, and the memory is the detector's
	}
	many := strconv.Itoa(2 * count)
	for _, st := range stalls() {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel() // each takes the five seconds that strangers have
			s := startServer(t, "--max-unauthenticated", many, "--max-unauthenticated-per-source", many)
			c := s.client(t, "--upstream", newOrigin(t, "a").URL)
			s.members(t, 1, patience)
			v := newVisitor(t, s.data)
			v.must200(t, "www.example.com", "/")
			warm(t, s, st)
			// Others, at a steady pace, so that it is not their memory that is measured.
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			others := startLoad(t, 1, func(ctx context.Context) error {
				<-pace.C
				code, _, _, err := v.get(ctx, "www.example.com", "/")
				if err == nil && code != http.StatusOK {
					err = errors.New(http.StatusText(code))
				}
				return err
			})
			until(t, "others are served", func() bool { return others.done.Load() > 100 })
			watch := watchMemory(t, s.process)
			lives := stallMany(t, s, st, count)
			total, failures := others.stop()
			var longest time.Duration
			for _, life := range lives {
				longest = max(longest, life)
			}
			t.Logf("%d sockets, the longest lived %v; meanwhile %d requests of others", len(lives), longest, total)
			// 5 s is the server's deadline; the rest is for a machine that is busy with handshakes.
			if longest > 10*time.Second {
				t.Errorf("a socket lived %v", longest)
			}
			if len(failures) > 0 {
				t.Errorf("%d of %d requests of others failed: %v", len(failures), total, failures[0])
			}
			grown := watch.grewAtMost(t, "server", int64(count)*st.bar*3/2)
			t.Logf("%.1f KiB a socket, the bar is %d", float64(grown)/1024/float64(count), st.bar>>10)
			v.client.CloseIdleConnections()
			s.settlesWithout(t, c)
		})
	}
}

// warm lets one stranger come and go, so that what any first one needs is not counted.
func warm(t *testing.T, s *server, st stall) {
	t.Helper()
	c, err := st.dial(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// stallMany opens many stalled connections, and returns how long each lived: until the server closed it.
func stallMany(t *testing.T, s *server, st stall, count int) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	var lives []time.Duration
	var wait sync.WaitGroup
	dialing := make(chan struct{}, 64)
	for range count {
		wait.Go(func() {
			dialing <- struct{}{}
			begun := time.Now()
			c, err := st.dial(ctx, s)
			<-dialing
			if err != nil {
				// A machine that is too slow may have met the deadline in the handshake already.
				if time.Since(begun) < 4*time.Second {
					t.Error(err)
				}
				if c == nil {
					return
				}
			}
			defer c.Close()
			_ = c.SetReadDeadline(begun.Add(patience)) // fails only on a closed connection
			_, err = io.Copy(io.Discard, c)            // until the server ends it
			if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				t.Errorf("still open after %v", time.Since(begun))
			}
			mu.Lock()
			lives = append(lives, time.Since(begun))
			mu.Unlock()
		})
	}
	wait.Wait()
	return lives
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestCapsOfStrangersHold(t *testing.T) {
	s := startServer(t) // 32 a source
	s.client(t, "--upstream", newOrigin(t, "a").URL)
	s.members(t, 1, patience)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	closed := 0
	for range 100 {
		c, err := stalledTCP(t.Context(), s)
		if err != nil { // closed before it was open
			closed++
			continue
		}
		open = append(open, c)
	}
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // fails only on a closed connection
		if _, err := c.Read(make([]byte, 1)); err != nil && !isTimeout(err) {
			closed++
		}
	}
	if closed < 100-32 {
		t.Errorf("%d of 100 silent sockets of one source were closed at once, want 68", closed)
	}
	newVisitor(t, s.data).must200(t, "www.example.com", "/") // clients that are in stay in
}

func TestGarbageOnTheControlPort(t *testing.T) {
	s := startServer(t)
	s.client(t, "--upstream", newOrigin(t, "a").URL)
	s.members(t, 1, patience)
	base := s.resources(t)
	for name, send := range map[string]string{
		"plain HTTP":        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"an SSH client":     "SSH-2.0-OpenSSH_9.2\r\n",
		"zeros":             string(make([]byte, 4096)),
		"a huge TLS record": "\x16\x03\x01\xff\xff" + string(make([]byte, 1000)),
	} {
		c, err := stalledTCP(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, send)                         // the server may have closed already
		_ = c.SetReadDeadline(time.Now().Add(7 * time.Second)) // fails only on a closed connection
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Errorf("%s: the connection is still open", name)
		}
		c.Close()
	}
	s.settles(t, base)
	newVisitor(t, s.data).must200(t, "www.example.com", "/")
}
