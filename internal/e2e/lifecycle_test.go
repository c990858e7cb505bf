//go:build linux

package e2e

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A balancer that asks whether the server is ready gets the time to notice that it goes down; its visitors are served
// meanwhile.
func TestReadyGrace(t *testing.T) {
	t.Parallel()
	const grace = 3 * time.Second
	ssh := startLedger(t)
	l := startLineage(t, "--ready-grace", grace.String(), "--drain-timeout", "20s")
	tunnel, echo := freeAddr(t), freeAddr(t)
	l.client(t, "--upstream", port(t, tunnel)+"="+ssh.Addr().String(), "--upstream", port(t, echo)+"="+startEcho(t).addr)
	accepts(t, "tcp", tunnel)
	open := dialEcho(t, echo)
	open.echoes(t, patience)
	asked := time.Now()
	until(t, "the balancer has asked for a while", func() bool { return l.ready() == nil && time.Since(asked) > 2*time.Second })

	l.signal(t, syscall.SIGTERM)
	down := time.Now()
	until(t, "it is not ready any more", func() bool { return l.ready() != nil })
	if err := l.ready(); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("readiness: %v, want 503", err)
	}
	served := time.Duration(0)
	until(t, "visitors are taken no more", func() bool {
		v := visitLedger(tunnel, answerTime)
		if v.err == nil {
			served = v.begun.Sub(down)
		}
		return v.err != nil
	})
	if served < grace-time.Second || served > grace+10*time.Second {
		t.Errorf("the last visitor was served %v after the signal, want about %v", served, grace)
	}
	// What is open goes on, and the operator sees what the server waits for.
	until(t, "it says what is open", func() bool { return strings.Contains(l.logged(t), `msg="waiting for connections to end" open=1`) })
	open.echoes(t, patience)
	_ = open.Close()
	if code := l.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// Nobody asks: then there is nobody to wait for.
func TestNoGraceForNobody(t *testing.T) {
	s := startServer(t, "--ready-grace", "1m")
	s.signal(t, syscall.SIGTERM)
	begun := time.Now()
	if code := s.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

// A serviceManager hears what a service tells it.
type serviceManager struct {
	path  string
	words chan string
}

func startServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{path: filepath.Join(t.TempDir(), "notify"), words: make(chan string, 1000)}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p := make([]byte, 4096)
		for {
			n, err := c.Read(p)
			if err != nil {
				return
			}
			m.words <- string(p[:n])
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-ended })
	return m
}

// hears waits for a message with the line.
func (m *serviceManager) hears(t *testing.T, line string) (message string) {
	t.Helper()
	timeout := time.After(patience)
	var heard []string
	for {
		select {
		case message = <-m.words:
			heard = append(heard, message)
			for one := range strings.SplitSeq(message, "\n") {
				if one == line {
					return message
				}
			}
		case <-timeout:
			t.Fatalf("the service manager never heard %s, but %q", line, heard)
		}
	}
}

func TestServiceManagerHearsOfAServersLife(t *testing.T) {
	m := startServiceManager(t)
	config := write(t, t.TempDir(), "culvert.yaml", "drain_timeout: 5s\n", 0o600)
	l := startLineageIn(t, []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=400000"}, "--config", config)
	m.hears(t, "READY=1")
	m.hears(t, "WATCHDOG=1")
	l.signal(t, syscall.SIGHUP)
	if message := m.hears(t, "RELOADING=1"); !strings.Contains(message, "MONOTONIC_USEC=") {
		t.Errorf("reloading without its time: %q", message)
	}
	m.hears(t, "READY=1")
	l.upgrade(t)
	if message := m.hears(t, "MAINPID="+strconv.Itoa(l.pids[1])); !strings.Contains(message, "READY=1") {
		t.Errorf("another process is the service, and not ready: %q", message)
	}
	if code := l.wait(t); code != 0 {
		t.Errorf("the process that was replaced: exit code %d, want 0", code)
	}
	m.hears(t, "WATCHDOG=1") // of the next process, too
	if err := syscall.Kill(l.pids[1], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.hears(t, "STOPPING=1")
	l.gone(t, l.pids[1])
}

// A client's service hangs: connections are accepted for it, and nothing answers. Its check finds out, and visitors go to the
// other client's.
func TestHealthCheckOfATunnel(t *testing.T) {
	need(t, "socat")
	service, works := freeAddr(t), startEcho(t)
	hangs := start(t, program{argv: []string{"socat", "TCP-LISTEN:" + port(t, service) + ",bind=127.0.0.1,fork,reuseaddr", "EXEC:cat"}})
	accepts(t, "tcp", service)
	s := startServer(t)
	tunnel := freeAddr(t)
	checks := []string{"--health-check", `expect:are you there\n|are you there`, "--health-interval", "300ms", "--health-timeout", "200ms", "--health-fall", "2", "--health-rise", "2"}
	a := s.client(t, append(checks, "--id", "hangs", "--upstream", port(t, tunnel)+"="+service)...)
	s.client(t, append(checks, "--id", "works", "--upstream", port(t, tunnel)+"="+works.addr)...)
	s.members(t, 2, patience)
	accepts(t, "tcp", tunnel)

	frozen := time.Now()
	hangs.signal(t, syscall.SIGSTOP)
	a.line(t, `msg="service is down"`)
	t.Logf("the client knew %v after its service hung", time.Since(frozen).Round(time.Millisecond))
	s.line(t, `msg="service is down, says the client's check".*client=hangs|client=hangs.*msg="service is down`)
	for range 20 {
		c := dialEcho(t, tunnel)
		if took := c.echoes(t, patience); took > 5*time.Second {
			t.Errorf("a visitor waited %v", took)
		}
		_ = c.Close()
	}
	hangs.signal(t, syscall.SIGCONT)
	a.line(t, `msg="service is up again"`)
	s.line(t, `service is up, says the client's check`)
}

// The last service of a port is down: then the port is closed, so that a balancer's TCP check sees it, and opens again.
func TestPortOfServicesThatAreDownCloses(t *testing.T) {
	service := freeAddr(t)
	s := startServer(t)
	tunnel := freeAddr(t)
	s.client(t, "--upstream", port(t, tunnel)+"="+service, "--health-check", "tcp", "--health-interval", "200ms", "--health-rise", "1")
	s.members(t, 1, patience)
	refuses := func() bool { // a reset is of a port that is open
		c, err := net.Dial("tcp", tunnel)
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	until(t, "the port of a service that is down is closed", refuses)
	stop := echoAt(t, service)
	accepts(t, "tcp", tunnel)
	c := dialEcho(t, tunnel)
	c.echoes(t, patience)
	_ = c.Close()
	stop()
	until(t, "it closes when the service is down again", refuses)
}

// echoAt has an echo service at an address until stop is called.
func echoAt(t *testing.T, addr string) (stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // the visitor sees what is missing
			})
		}
	})
	stop = sync.OnceFunc(func() { _ = ln.Close(); wait.Wait() })
	t.Cleanup(stop)
	return stop
}
