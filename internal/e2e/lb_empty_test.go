//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Without a usable member the port of an entrypoint closes, resets or lets visitors wait, as its file says; and a
// balancer in front sees it with the plainest of checks.
func TestLBWhenEmpty(t *testing.T) {
	need(t, "haproxy")
	t.Parallel()
	p, app := startMember(t, "tcp", "app")
	addr := map[string]string{}
	text := "entrypoints:\n"
	for _, w := range []string{"refuse", "reset", "queue"} {
		addr[w] = freeAddr(t)
		text += fmt.Sprintf("  - {name: %[1]s, addr: %[2]q, when_empty: %[1]s, routes: [{upstream: app}]%[3]s}\n", w, addr[w],
			map[string]string{"queue": ", queue_timeout: 15s"}[w])
	}
	startLB(t, text+fmt.Sprintf("upstreams:\n  - {name: app, members: %s, health: {tcp: {}, interval: 300ms, timeout: 300ms, rise: 1, fall: 2}}\n", memberList(app)))
	front := freeAddr(t)
	// HAProxy answers 200 while its check of the data port, a bare connect, is good.
	startHAProxy(t, fmt.Sprintf(`
frontend state
  mode http
  bind %s
  http-request return status 200 if { nbsrv(data) gt 0 }
  http-request return status 503
backend data
  mode tcp
  server a %s check inter 100ms fall 1 rise 1
`, front, addr["refuse"]))
	state := func(want int) time.Duration {
		t.Helper()
		return eventually(t, patience, fmt.Sprintf("HAProxy answers %d", want), func(context.Context) error {
			resp, err := http.Get("http://" + front)
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				err = errors.New(resp.Status)
			}
			return err
		})
	}
	for _, a := range addr {
		if by := whoAnswers(t, "tcp", "", a); by != "app" {
			t.Errorf("%s answers", by)
		}
	}
	state(http.StatusOK)

	p.kill(t)
	gone := time.Now()
	closes(t, addr["refuse"], patience)
	closed := time.Since(gone)
	state(http.StatusServiceUnavailable)
	t.Logf("the port refuses %v after the last member went, HAProxy saw it after %v", closed, time.Since(gone))
	if closed < 1500*time.Millisecond || closed > 10*time.Second {
		t.Errorf("the port closed %v after the last member went, want 2 s and what the check takes", closed)
	}
	c, err := net.Dial("tcp", addr["reset"])
	if err == nil { // else it was reset before that was known
		_ = c.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: the visitor has %v", err)
	}
	waiting := openTalk(t, "tcp", "", addr["queue"])
	if _, err := io.WriteString(waiting, "hello\n"); err != nil {
		t.Fatal(err)
	}
	_ = waiting.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // fails only on a closed connection
	if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("queue: the visitor has %v, want to wait", err)
	}

	againMember(t, "tcp", "app", app)
	back := time.Now()
	accepts(t, "tcp", addr["refuse"])
	t.Logf("the port is open again %v after the member came", time.Since(back))
	_ = waiting.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if line, err := waiting.lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "app ") {
		t.Errorf("queue: the visitor who waited has %q, %v", line, err)
	}
	state(http.StatusOK)
	for _, a := range addr {
		if by := whoAnswers(t, "tcp", "", a); by != "app" {
			t.Errorf("%s answers", by)
		}
	}
}

// A visitor who waits longer than the entrypoint lets him is sent away.
func TestLBQueueOfAnEmptyEntrypointEnds(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	text := oneEntrypoint(addr, memberList(freeAddr(t)), "health: {tcp: {}, interval: 100ms, timeout: 100ms, rise: 1, fall: 1}")
	b := startLB(t, strings.Replace(text, "    routes:", "    when_empty: queue\n    queue_timeout: 1s\n    routes:", 1))
	until(t, "the check has failed", func() bool {
		m := b.metrics(t)
		return sum(m, "culvert_member_checks_total") > 0 && sum(m, "culvert_member_check_seconds") > 0 && sum(m, "culvert_member_up") == 0
	})
	c := openTalk(t, "tcp", "", addr)
	began := time.Now()
	_ = c.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
	_, err := c.Read(make([]byte, 1))
	if took := time.Since(began); err == nil || isTimeout(err) || took < 900*time.Millisecond || took > 4*time.Second {
		t.Errorf("the visitor had %v after %v, want the end after 1 s", err, took)
	}
	var found struct {
		Connections []struct {
			QueuedMillis float64 `json:"queuedMillis"`
		} `json:"connections"`
	}
	if err := json.Unmarshal([]byte(b.mustAPI(t, http.MethodGet, "/api/connections", nil)), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Connections) != 1 || found.Connections[0].QueuedMillis < 900 {
		t.Errorf("explained: %+v, want one connection that waited for a second", found.Connections)
	}
}

// A tunnel's port closes with its last client, and that of an entrypoint of the file whose only member is a tunnel too.
func TestLBTunnelAsMember(t *testing.T) {
	t.Parallel()
	app, spare := startTCP(t, "laptop", "127.0.0.1:0"), startTCP(t, "spare", "127.0.0.1:0")
	only, both := freeAddr(t), freeAddr(t)
	file := write(t, t.TempDir(), "culvert.yaml", fmt.Sprintf(`
entrypoints:
  - {name: only, addr: %q, routes: [{upstream: laptop}]}
  - {name: both, addr: %q, routes: [{upstream: pool}]}
upstreams:
  - name: laptop
    members: [{tunnel: name/laptop}]
  - name: pool
    members: [{tunnel: name/laptop}, {address: %q, backup: true}]
`, only, both, spare.addr), 0o600)
	s := startServer(t, "--config", file)
	closes(t, only, 5*time.Second)
	if by := whoAnswers(t, "tcp", "", both); by != "spare" {
		t.Errorf("before a client came: %s answers", by)
	}
	for range 2 {
		c := s.clientProgram(t, "client", "--upstream", "name/laptop="+app.addr)
		accepts(t, "tcp", only)
		until(t, "the tunnel goes before the backup", func() bool { return whoAnswers(t, "tcp", "", both) == "laptop" })
		if by := whoAnswers(t, "tcp", "", only); by != "laptop" {
			t.Errorf("%s answers", by)
		}
		if code := c.stop(t); code != 0 {
			t.Errorf("the client ended with exit code %d", code)
		}
		until(t, "the backup serves", func() bool { return whoAnswers(t, "tcp", "", both) == "spare" })
		closes(t, only, patience)
	}
}
