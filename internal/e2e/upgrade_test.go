//go:build linux

package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A lineage is a server whose processes take each other's place. Its output is a file, which no process owns.
type lineage struct {
	*server
	health string
	log    string
	pids   []int // of the processes, the newest last
}

func startLineage(t *testing.T, args ...string) *lineage {
	t.Helper()
	return startLineageIn(t, nil, args...)
}

func startLineageIn(t *testing.T, env []string, args ...string) *lineage {
	t.Helper()
	l := &lineage{server: &server{control: freeAddr(t), data: freeAddr(t), token: rand.Text(), state: t.TempDir()}, health: freeAddr(t)}
	l.begin(t, env, append([]string{
		culvert(), "server", "--control-addr", "127.0.0.1", "--control-port", port(t, l.control), "--data-addr", "127.0.0.1",
		"--port", port(t, l.data), "--auto-tls-path", l.state, "--auto-tls-san", "127.0.0.1", "--health-addr", l.health,
		"--token-file", write(t, l.state, "token", l.token+"\n", 0o600),
	}, args...))
	return l
}

// begin starts the first process.
func (l *lineage) begin(t *testing.T, env, argv []string) {
	t.Helper()
	l.log = l.state + "/log"
	out, err := os.Create(l.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = l.state, out, out
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.state, underRace}, env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.pids = []int{cmd.Process.Pid}
	l.process = &process{name: "culvert", cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		_ = cmd.Wait() // the state says it all
	}()
	t.Cleanup(func() {
		for _, pid := range l.pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // those that have ended are gone
		}
		<-l.done
		if t.Failed() {
			t.Logf("processes %v; their log:\n%s", l.pids, tail(l.logged(t), 120))
		}
	})
	until(t, "the server is ready", func() bool { return l.ready() == nil })
}

// ready asks the health port.
func (l *lineage) ready() error {
	resp, err := (&http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + l.health + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func (l *lineage) logged(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(l.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var tookOver = regexp.MustCompile(`msg="another process takes over".* pid=([0-9]+)`)

// upgrade has the newest process replaced, and returns when the next one has taken over.
func (l *lineage) upgrade(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(l.pids[len(l.pids)-1], syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	until(t, "another process is ready", func() bool {
		found := tookOver.FindAllStringSubmatch(l.logged(t), -1)
		if len(found) < len(l.pids) {
			return false
		}
		pid, err := strconv.Atoi(found[len(l.pids)-1][1])
		if err != nil {
			t.Fatal(err)
		}
		l.pids = append(l.pids, pid)
		return true
	})
	until(t, "it has taken over", func() bool {
		return strings.Count(l.logged(t), `msg="this process has taken over"`) >= len(l.pids)-1
	})
}

// gone waits for the end of a process.
func (l *lineage) gone(t *testing.T, pid int) {
	t.Helper()
	until(t, fmt.Sprintf("process %d has ended", pid), func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ") // an orphan, which nobody here asks for
	})
}

// Visitors come at a steady rate while the server is replaced twice. Nobody is refused or reset; what was open stays open.
func TestUpgrade(t *testing.T) {
	perSecond, least := 400, 2000
	if raceEnabled {
		perSecond, least = 80, 400 // the detector makes a connection ten times as dear
	}
	ssh, web := startLedger(t), startHTTPLedger(t)
	l := startLineage(t, "--drain-timeout", "60s")
	tunnel, echo := freeAddr(t), freeAddr(t)
	for _, id := range []string{"a", "b"} {
		l.client(t, "--id", id, "--upstream", port(t, tunnel)+"="+ssh.Addr().String(), "--upstream", web.URL,
			"--upstream", port(t, echo)+"="+startEcho(t).addr)
	}
	l.members(t, 2, patience)
	accepts(t, "tcp", tunnel)
	open := dialEcho(t, echo)
	open.echoes(t, patience)

	begun := time.Now()
	flood := startVisits(t, perSecond, func() visit { return visitLedger(tunnel, answerTime) })
	pages := startVisits(t, perSecond/8, func() visit { return visitHTTP(l.data, answerTime) })
	probes := startVisits(t, 20, func() visit {
		v := visit{begun: time.Now(), err: l.ready()}
		v.took = time.Since(v.begun)
		return v
	})
	until(t, "visitors are served", func() bool { return ssh.total.Load() > int64(perSecond) })
	for range 2 {
		had := ssh.total.Load()
		at := time.Now()
		l.upgrade(t)
		t.Logf("process %d took over %v after the signal", l.pids[len(l.pids)-1], time.Since(at).Round(time.Millisecond))
		open.echoes(t, patience) // through the process that opened it
		until(t, "visitors are served by the next process", func() bool { return ssh.total.Load() > had+2*int64(perSecond) })
	}
	until(t, "enough visitors have come", func() bool { return ssh.total.Load() > int64(least) })
	noneFailed(t, begun, map[string][]visit{"TCP": flood.stop(t), "HTTP": pages.stop(t), "readiness": probes.stop(t)})

	// The first process has the open connection, and ends with it; the second has nothing to wait for.
	l.gone(t, l.pids[1])
	open.echoes(t, patience)
	_ = open.Close()
	if code := l.wait(t); code != 0 {
		t.Errorf("the first process ended with code %d, want 0", code)
	}
	if err := l.ready(); err != nil {
		t.Errorf("the last process: %v", err)
	}
}

func noneFailed(t *testing.T, begun time.Time, visits map[string][]visit) {
	t.Helper()
	for name, all := range visits {
		failed, slowest := 0, time.Duration(0)
		for _, v := range all {
			slowest = max(slowest, v.took)
			if v.err == nil {
				continue
			}
			if failed++; failed <= 5 {
				t.Errorf("%s: a visit that began %v after the start failed after %v: %v", name, v.begun.Sub(begun), v.took, v.err)
			}
		}
		t.Logf("%s: %d visits, %d failed, the slowest took %v", name, len(all), failed, slowest)
	}
}

// The same for a balancer, which has no clients, and checks its members itself. Flows of UDP begin anew.
func TestUpgradeOfABalancer(t *testing.T) {
	perSecond := 400
	if raceEnabled {
		perSecond = 80
	}
	a, b := startLedger(t), startLedger(t)
	tcp, udp := freeAddr(t), freeAddr(t)
	l := &lineage{server: &server{state: t.TempDir()}, health: freeAddr(t)}
	config := fmt.Sprintf(`
health_addr: %s
entrypoints:
  - {name: tcp, addr: %s, routes: [{upstream: tcp}]}
  - {name: udp, protocol: udp, addr: %s, routes: [{upstream: udp}]}
upstreams:
  - name: tcp
    members: [{address: %s}, {address: %s}]
    health: {tcp: {}, interval: 500ms, timeout: 300ms}
  - name: udp
    members: [{address: %s}]
`, l.health, tcp, udp, a.Addr(), b.Addr(), startUDPEcho(t))
	l.begin(t, nil, []string{culvert(), "lb", "--config", write(t, l.state, "culvert.yaml", config, 0o600)})
	accepts(t, "tcp", tcp)
	begun := time.Now()
	flood := startVisits(t, perSecond, func() visit { return visitLedger(tcp, answerTime) })
	total := func() int64 { return a.total.Load() + b.total.Load() }
	flow, err := net.Dial("udp", udp)
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	for range 2 {
		asksUDP(t, flow)
		had := total()
		l.upgrade(t)
		asksUDP(t, flow)
		until(t, "visitors are served by the next process", func() bool { return total() > had+2*int64(perSecond) })
	}
	noneFailed(t, begun, map[string][]visit{"TCP": flood.stop(t)})
	for _, pid := range l.pids[:2] {
		l.gone(t, pid)
	}
	if code := l.wait(t); code != 0 {
		t.Errorf("the first process ended with code %d, want 0", code)
	}
}

// startUDPEcho sends every datagram back.
func startUDPEcho(t *testing.T) (addr string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(p)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(p[:n], from) // one that is lost is asked for again
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-ended })
	return pc.LocalAddr().String()
}

// asksUDP sends datagrams until one comes back.
func asksUDP(t *testing.T, c net.Conn) {
	t.Helper()
	want := rand.Text()
	until(t, "a datagram comes back", func() bool {
		_, _ = c.Write([]byte(want)) // refused while nobody listens
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		p := make([]byte, 2048)
		n, _ := c.Read(p)
		return string(p[:n]) == want
	})
}

// systemd opens the ports, and keeps what comes until the program is there.
func TestSocketActivation(t *testing.T) {
	need(t, "systemd-socket-activate")
	ledger, l := startLedger(t), &lineage{server: &server{state: t.TempDir()}, health: freeAddr(t)}
	tcp := freeAddr(t)
	config := fmt.Sprintf("health_addr: %s\nentrypoints: [{name: tcp, addr: %s, routes: [{upstream: tcp}]}]\nupstreams: [{name: tcp, members: [{address: %s}]}]\n",
		l.health, tcp, ledger.Addr())
	p := start(t, program{argv: []string{
		"systemd-socket-activate", "--listen", tcp, "--listen", l.health, "--fdname", "tcp:health",
		culvert(), "lb", "--config", write(t, l.state, "culvert.yaml", config, 0o600),
	}})
	p.line(t, "Listening on "+tcp)
	if v := visitLedger(tcp, patience); v.err != nil { // which starts the program
		t.Errorf("the visitor who came before the program: %v", v.err)
	}
	until(t, "it is ready", func() bool { return l.ready() == nil }) // a port that was open may have its visitor before
}

// A program that does not come up leaves everything as it was.
func TestUpgradeToWhatDoesNotStart(t *testing.T) {
	ssh := startLedger(t)
	l := startLineage(t)
	tunnel := freeAddr(t)
	l.client(t, "--upstream", port(t, tunnel)+"="+ssh.Addr().String())
	accepts(t, "tcp", tunnel)
	if err := os.Remove(l.state + "/token"); err != nil { // which the new process would need
		t.Fatal(err)
	}
	flood := startVisits(t, 100, func() visit { return visitLedger(tunnel, answerTime) })
	if err := syscall.Kill(l.pids[0], syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	until(t, "the upgrade has failed", func() bool { return strings.Contains(l.logged(t), `msg="the upgrade failed, this process goes on"`) })
	if log := l.logged(t); !strings.Contains(log, "exit status 2") || !strings.Contains(log, "--token-file") {
		t.Error("the log does not say why")
	}
	had := ssh.total.Load()
	until(t, "visitors are still served", func() bool { return ssh.total.Load() > had+100 })
	for _, v := range flood.stop(t) {
		if v.err != nil {
			t.Fatalf("a visit failed: %v", v.err)
		}
	}
	l.signal(t, syscall.SIGTERM)
	if code := l.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
