//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The seed's scenario with culvert's own means: the connections of one device go for a time to a developer's laptop
// behind a tunnel, a breakpoint there harms nobody else, and at its end the device is back in the pool.
func TestSeed004DivertToALaptop(t *testing.T) {
	t.Parallel()
	const device = "127.0.0.140"
	app1, app2 := startTCP(t, "app1", "127.0.0.1:0"), startTCP(t, "app2", "127.0.0.1:0")
	udp1 := startUDP(t, "udp1", "127.0.0.1:0")
	laptop, laptopAddr := startMember(t, "tcp", "laptop")
	laptopUDP := startUDP(t, "laptop", "127.0.0.1:0")
	echo := startEcho(t)
	tcp, udp, bulk := freeAddr(t), freeAddr(t), freeAddr(t)
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens.yaml")
	developer := write(t, dir, "developer", newToken(t, tokens, "developer", "--divert", "devices*"), 0o600)
	s := startServer(t, "--drain-timeout", "2s", "--tokens", tokens, "--config", write(t, dir, "culvert.yaml", fmt.Sprintf(`
entrypoints:
  - {name: devices, addr: %q, routes: [{upstream: app}]}
  - {name: devices-udp, protocol: udp, addr: %q, routes: [{upstream: app-udp}]}
  - {name: bulk, addr: %q, routes: [{upstream: echo}]}
upstreams:
  - {name: app, members: %s}
  - {name: app-udp, members: %s}
  - {name: echo, members: %s}
`, tcp, udp, bulk, memberList(app1.addr, app2.addr), memberList(udp1.addr), memberList(echo.addr)), 0o600))

	// What is open throughout: others, and the device itself.
	others := startStreams(t, bulk, 4)
	other := openTalk(t, "tcp", "127.0.0.2", tcp)
	otherAt := other.mustSay(t, "before")
	old := openTalk(t, "tcp", device, tcp)
	oldAt := old.mustSay(t, "before")
	flow := openTalk(t, "udp", device, udp)
	flow.mustSay(t, "before")
	otherFlow := openTalk(t, "udp", "127.0.0.2", udp)
	otherFlowAt := otherFlow.mustSay(t, "before")

	divert := func(entrypoint, to string, more ...string) *process {
		t.Helper()
		argv := []string{culvert(), "divert", "--url", "wss://" + s.control, "--token-file", developer, "--entrypoint", entrypoint, "--source", device + "/32", "--to", to}
		return start(t, program{argv: append(argv, more...)})
	}
	began := time.Now()
	d := divert("devices", laptopAddr, "--for", "30m")
	u := divert("devices-udp", laptopUDP.addr, "--for", "30m")
	until(t, "the device's connections come to the laptop", func() bool { return answers(tcp, device) == "laptop" })
	until(t, "the device's flow comes to the laptop", func() bool {
		s, err := flow.says("moved", time.Second)
		return err == nil && s.by == "laptop"
	})
	t.Logf("diverted %v after the command was typed", time.Since(began))
	for range 5 {
		if by := whoAnswers(t, "tcp", device, tcp); by != "laptop" {
			t.Errorf("the device: %s answers", by)
		}
		if by := whoAnswers(t, "tcp", "127.0.0.2", tcp); by == "laptop" {
			t.Error("another device is diverted too")
		}
		if by := whoAnswers(t, "udp", "127.0.0.2", udp); by != "udp1" {
			t.Errorf("another device over UDP: %s answers", by)
		}
	}
	if code, answer := s.api(t, http.MethodGet, "/api/dataplane", nil); code != http.StatusOK || !strings.Contains(answer, device) {
		t.Errorf("the divert is not listed: %d %s", code, answer)
	}

	// A breakpoint: the laptop's service stands still.
	laptop.freeze(t)
	stuck := openTalk(t, "tcp", device, tcp)
	if _, err := io.WriteString(stuck.Conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	var slowest time.Duration
	for range 100 {
		v := time.Now()
		if by := answers(tcp, "127.0.0.3"); by != "app1" && by != "app2" {
			t.Errorf("while the laptop stands at a breakpoint another device is answered by %q", by)
		}
		slowest = max(slowest, time.Since(v))
	}
	t.Logf("while the laptop stands at a breakpoint the slowest answer to another took %v", slowest)
	other.mustSay(t, "during the breakpoint")
	laptop.signal(t, syscall.SIGCONT)
	_ = stuck.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if line, err := stuck.lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "laptop ") {
		t.Errorf("after the breakpoint the device has %q, %v", line, err)
	}

	// The laptop's service ends: the device falls through to the pool, and is not left alone.
	laptop.kill(t)
	for i := range 5 {
		if by := answers(tcp, device); by != "app1" && by != "app2" {
			t.Errorf("with the laptop's service away, connection %d of the device is answered by %q", i, by)
		}
	}

	// Ctrl-C ends it. (It would wait for what is open.)
	stuck.Close()
	for _, p := range []*process{d, u} {
		p.signal(t, syscall.SIGINT)
		if code := p.wait(t); code != 0 && code != 130 {
			t.Errorf("culvert divert ended with exit code %d", code)
		}
	}
	until(t, "the device's flow is back", func() bool {
		s, err := flow.says("back", time.Second)
		return err == nil && s.by == "udp1"
	})
	if by := answers(tcp, device); by != "app1" && by != "app2" {
		t.Errorf("after the end the device is answered by %q", by)
	}
	if s := old.mustSay(t, "after"); s.by != oldAt.by {
		t.Errorf("the device's connection from before went from %+v to %+v", oldAt, s)
	}
	if s := other.mustSay(t, "after"); s.by != otherAt.by {
		t.Errorf("another's connection went from %+v to %+v", otherAt, s)
	}
	if s := otherFlow.mustSay(t, "after"); s.peer != otherFlowAt.peer {
		t.Errorf("another's flow went from %+v to %+v", otherFlowAt, s)
	}
	t.Logf("others had %s echoed meanwhile, every byte in its place", mebibytes(others.stop(t)))

	// The time is up by itself, and another's entrypoint is not the developer's.
	limited := divert("devices", laptopUDP.addr, "--for", "1s", "--on-down", "fail")
	if code := limited.wait(t); code != 0 {
		t.Errorf("at the end of its time: exit code %d", code)
	}
	if by := answers(tcp, device); by != "app1" && by != "app2" {
		t.Errorf("after its time the device is answered by %q", by)
	}
	foreign := divert("bulk", laptopUDP.addr, "--for", "1s")
	if code := foreign.wait(t); code == 0 || !strings.Contains(foreign.out.String(), "bulk") {
		t.Errorf("an entrypoint that is not granted: exit code %d", code)
	}
}

// The operator takes a divert back: the developer is told, and the device is back in the pool.
func TestDivertRevokedByTheOperator(t *testing.T) {
	t.Parallel()
	app, laptop := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "laptop", "127.0.0.1:0")
	addr := freeAddr(t)
	s := startServer(t, "--config", write(t, t.TempDir(), "culvert.yaml", oneEntrypoint(addr, memberList(app.addr)), 0o600))
	d := start(t, program{argv: []string{
		culvert(), "divert", "--url", "wss://" + s.control, "--token-file", s.state + "/token",
		"--entrypoint", "devices", "--source", "127.0.0.140", "--to", laptop.addr,
	}})
	until(t, "the device is diverted", func() bool { return answers(addr, "127.0.0.140") == "laptop" })
	var plane struct {
		Diverts []struct{ ID, Source, By, Entrypoint string }
	}
	decode(t, s.mustAPI(t, http.MethodGet, "/api/dataplane", nil), &plane)
	if len(plane.Diverts) != 1 {
		t.Fatalf("%+v", plane)
	}
	s.mustAPI(t, http.MethodDelete, "/api/diverts/"+plane.Diverts[0].ID, nil)
	if by := answers(addr, "127.0.0.140"); by != "app" {
		t.Errorf("%s answers", by)
	}
	if code := d.wait(t); code == 0 {
		t.Errorf("the developer is not told: exit code %d\n%s", code, d.out)
	}
}

// culvert explain says where a connection went, and why.
func TestExplainSaysWhy(t *testing.T) {
	t.Parallel()
	app, debug := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "debug", "127.0.0.1:0")
	addr, gone := freeAddr(t), freeAddr(t)
	b := startLB(t, fmt.Sprintf(`
entrypoints:
  - name: devices
    addr: %q
    routes: [{name: debug-box, match: {source: 127.0.0.140}, upstream: debug}, {upstream: app}]
upstreams:
  - {name: debug, members: %s}
  - {name: app, balance: first, members: %s}
`, addr, memberList(debug.addr), memberList(gone, app.addr)))
	k := openTalk(t, "tcp", "127.0.0.2", addr)
	k.mustSay(t, "hello")
	k.Close()
	openTalk(t, "tcp", "127.0.0.140", addr).mustSay(t, "open")
	explain := func(args ...string) string {
		return must(t, program{argv: append([]string{culvert(), "explain", "--url", "wss://" + b.control, "--token-file", b.state + "/token"}, args...)})
	}
	var out string
	eventually(t, patience, "the record of the connection is closed", func(context.Context) error {
		out = explain("--source", "127.0.0.2")
		for _, want := range []string{"127.0.0.2", "devices", "app", app.addr, gone, "refused"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in\n%s", want, out)
			}
		}
		return nil
	})
	t.Logf("%s", out)
	out = explain("--source", "127.0.0.140")
	for _, want := range []string{"debug-box", debug.addr} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// streams are connections that carry bytes both ways without a pause, each byte held against what was sent.
type streams struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	bytes  atomic.Int64
	failed atomic.Pointer[error]
}

func startStreams(t *testing.T, addr string, count int) *streams {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &streams{cancel: cancel}
	for range count {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		s.wait.Go(func() {
			defer c.Close()
			if err := s.carry(ctx, c); err != nil {
				s.failed.Store(&err)
			}
		})
	}
	t.Cleanup(func() { cancel(); s.wait.Wait() })
	return s
}

func (s *streams) carry(ctx context.Context, c net.Conn) error {
	src, back := newPattern(), bufio.NewReader(c)
	sent, got := make([]byte, 4<<10), make([]byte, 4<<10)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
		_, _ = io.ReadFull(src, sent)               // it never ends
		if _, err := c.Write(sent); err != nil {
			return err
		}
		if _, err := io.ReadFull(back, got); err != nil {
			return err
		}
		if !bytes.Equal(sent, got) {
			return errors.New("other bytes came back")
		}
		s.bytes.Add(int64(len(got)))
	}
}

// stop ends them, and returns how many bytes came back; none of them may have failed.
func (s *streams) stop(t *testing.T) int64 {
	t.Helper()
	s.cancel()
	s.wait.Wait()
	if err := s.failed.Load(); err != nil {
		t.Errorf("a connection that was open throughout: %v", *err)
	}
	return s.bytes.Load()
}
