//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// healthGET asks a health port, with bytes of a balancer before the request.
func healthGET(source, addr, before, path string) (code int, body string, err error) {
	c, err := dialFrom("tcp", source, addr, patience)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if _, err := io.WriteString(c, before+"GET "+path+" HTTP/1.0\r\n\r\n"); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// Health checks of AWS and DigitalOcean begin with a header where the data has one.
func TestLBHealthPortTakesHeadersOfBalancers(t *testing.T) {
	t.Parallel()
	if n := len(nlbHealth()); n != 100 {
		t.Fatalf("AWS's header has 100 bytes, this one %d", n)
	}
	health, addr := freeAddr(t), freeAddr(t)
	app := startTCP(t, "app", "127.0.0.1:0")
	startLB(t, oneEntrypoint(addr, memberList(app.addr)), "health_addr: "+health, "lb_trusted: [127.0.0.0/8]")
	for _, path := range []string{"/healthz", "/readyz", "/readyz/app"} {
		for name, before := range map[string]string{
			"plain":                    "",
			"AWS":                      nlbHealth(),
			"HAProxy's LOCAL":          proxyV2(0, 0, ""),
			"DigitalOcean":             "PROXY TCP4 10.10.0.2 10.10.0.3 41000 8081\r\n",
			"DigitalOcean without one": "PROXY UNKNOWN\r\n",
			"v2":                       proxyV2TCP4("10.10.0.2:41000", "10.10.0.3:8081"),
		} {
			code, body, err := healthGET("127.0.0.50", health, before, path)
			if err != nil || code != http.StatusOK {
				t.Errorf("%s, %s: %d %s %v", path, name, code, body, err)
			}
		}
	}
	if code, body, err := healthGET("", health, "", "/readyz/no-such"); err != nil || code/100 != 4 && code != http.StatusServiceUnavailable {
		t.Errorf("a service that is not there: %d %s %v", code, body, err)
	}
	app.stop()
	// Without a check nobody knows that the member is away, but the readiness of the process is no matter of members.
	if code, body, err := healthGET("", health, "", "/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("/healthz without a member: %d %s %v", code, body, err)
	}
}

// A balancer's checks of the data port are answered here: they do not reach a member.
func TestLBProbesOfDataPorts(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	behind, probed := freeAddr(t), freeAddr(t)
	b := startLB(t, fmt.Sprintf(`
entrypoints:
  - name: behind
    addr: %q
    proxy_protocol: {accept: auto, trusted: [127.0.0.50]}
    routes: [{upstream: app}]
  - name: probed
    addr: %q
    probe_sources: [127.0.0.60]
    routes: [{upstream: app}]
upstreams:
  - {name: app, members: %s}
`, behind, probed, memberList(app.addr)))
	for range 20 {
		for _, p := range []struct{ source, addr, sends string }{
			{"127.0.0.50", behind, nlbHealth()},
			{"127.0.0.50", behind, proxyV2(0, 0, "")},
			{"127.0.0.60", probed, ""},
		} {
			c, err := dialFrom("tcp", p.source, p.addr, patience)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, p.sends); err != nil {
				t.Errorf("%+v: %v", p, err)
			}
			c.Close()
		}
	}
	// The members are asked through both, after all of these: there is no other connection.
	for _, p := range []struct{ source, addr, sends string }{
		{"127.0.0.50", behind, nlbHealth()}, // a balancer that asks something after its LOCAL
		{"127.0.0.50", behind, "PROXY TCP4 192.0.2.1 192.0.2.2 4000 23\r\n"},
		{"127.0.0.60", probed, ""}, // a visitor who has the address of the probes
		{"127.0.0.2", probed, ""},
	} {
		k := openTalk(t, "tcp", p.source, p.addr)
		if _, err := io.WriteString(k.Conn, p.sends); err != nil {
			t.Fatal(err)
		}
		k.mustSay(t, "hello")
	}
	if n := app.accepted.Load(); n != 4 {
		t.Errorf("the member had %d connections, want 4: no probe reaches it", n)
	}
	m := b.metrics(t)
	for name, n := range m {
		if strings.HasPrefix(name, "culvert_member_failed") && n > 0 {
			t.Errorf("%s %v: a probe is no failure", name, n)
		}
	}
}

// The order of going down (section 7.9): readiness first, the port closes after the grace, what is open finishes, and
// the process ends with 0. Visitors who come until the port closes are all served.
func TestLBDrainOrder(t *testing.T) {
	t.Run("lb", func(t *testing.T) {
		t.Parallel()
		health, addr := freeAddr(t), freeAddr(t)
		app := startTCP(t, "app", "127.0.0.1:0")
		b := startLB(t, oneEntrypoint(addr, memberList(app.addr)), "health_addr: "+health, "ready_grace: 2s", "drain_timeout: 20s")
		drainInOrder(t, b.process, health, addr, 2*time.Second)
	})
	t.Run("server with a tunnel", func(t *testing.T) {
		t.Parallel()
		health, tunnel := freeAddr(t), freeAddr(t)
		app := startTCP(t, "app", "127.0.0.1:0")
		s := startServer(t, "--health-addr", health, "--ready-grace", "2s", "--drain-timeout", "20s")
		c := s.clientProgram(t, "tcp client", "--upstream", port(t, tunnel)+"="+app.addr)
		accepts(t, "tcp", tunnel)
		drainInOrder(t, s.process, health, tunnel, 2*time.Second)
		c.kill(t) // it would wait for the server to come back
	})
}

func drainInOrder(t *testing.T, p *process, health, addr string, grace time.Duration) {
	t.Helper()
	open := openTalk(t, "tcp", "", addr)
	open.mustSay(t, "before")
	v := startVisits(t, 200, func() visit { return visitMember(addr, answerTime) })
	probesReadiness(t, health)
	began := time.Now()
	p.signal(t, syscall.SIGTERM)
	unready := eventually(t, grace, "/readyz is 503", func(context.Context) error {
		code, body, err := healthGET("", health, "", "/readyz")
		if err == nil && code != http.StatusServiceUnavailable {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	if err := refused(addr); err == nil {
		t.Errorf("%s refuses as soon as /readyz fails, want it to accept for another %v", addr, grace)
	}
	if code, body, err := healthGET("", health, "", "/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("/healthz while going down: %d %s %v", code, body, err)
	}
	closes(t, addr, grace+10*time.Second)
	closed := time.Since(began)
	visits := v.stop(t)
	var failed int
	for _, one := range visits {
		if one.err == nil {
			continue
		}
		failed++
		// The last ones before the port was found closed may have been refused already, and who was in the kernel's queue
		// when it closed is reset.
		last := errors.Is(one.err, syscall.ECONNREFUSED) || errors.Is(one.err, syscall.ECONNRESET) || errors.Is(one.err, syscall.EPIPE)
		if end := one.begun.Add(one.took).Sub(began); end < closed-200*time.Millisecond || !last {
			t.Errorf("a visit that ended %v after the signal, %v before the port was closed: %v", end, closed-end, one.err)
			break
		}
	}
	t.Logf("/readyz failed after %v, the port closed after %v; %d visits, %d refused", unready, closed, len(visits), failed)
	if closed < grace-100*time.Millisecond {
		t.Errorf("the port closed after %v, want %v", closed, grace)
	}
	open.mustSay(t, "after the port has closed")
	select {
	case <-p.done:
		t.Error("it ended with a connection open")
	default:
	}
	open.Close()
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("it ended %v after the signal", time.Since(began))
}

// probesReadiness asks as a balancer does, again and again: only then is there somebody to wait for.
func probesReadiness(t *testing.T, health string) {
	t.Helper()
	for i := range 2 {
		if i > 0 {
			lasts(t, 1100*time.Millisecond)
		}
		if code, body, err := healthGET("", health, "", "/readyz"); err != nil || code != http.StatusOK {
			t.Fatalf("/readyz: %d %s %v", code, body, err)
		}
	}
}

// What is open longer than the drain may last is reset.
func TestLBDrainTimeout(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	app := startTCP(t, "app", "127.0.0.1:0")
	b := startLB(t, oneEntrypoint(addr, memberList(app.addr)), "ready_grace: 0s", "drain_timeout: 1s")
	open := openTalk(t, "tcp", "", addr)
	open.mustSay(t, "before")
	began := time.Now()
	b.signal(t, syscall.SIGTERM)
	_ = open.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if _, err := open.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the open connection: %v", err)
	}
	if code := b.wait(t); code != 0 {
		t.Logf("exit code %d with a connection cut off", code)
	}
	if took := time.Since(began); took < 900*time.Millisecond || took > 10*time.Second {
		t.Errorf("ended %v after the signal, want 1 s", took)
	}
}
