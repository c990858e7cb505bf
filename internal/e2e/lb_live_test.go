//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// divertTo starts `culvert divert` with the server's own token, and waits until it has begun.
func (s *server) divertTo(t *testing.T, entrypoint, to string, more ...string) *process {
	t.Helper()
	argv := []string{culvert(), "divert", "--url", "wss://" + s.control, "--token-file", s.state + "/token", "--entrypoint", entrypoint, "--to", to, "--drain-timeout", "1s"}
	p := start(t, program{argv: append(argv, more...)})
	p.line(t, `(?i)new .*traffic`)
	return p
}

// Whatever becomes of the developer's machine, the device is served, and what it sent runs once.
func TestDivertHarmsNobodyWhenItsTargetFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		begin  func(t *testing.T, d *process, target string)
		within time.Duration // of the first answer to the device
	}{
		{"refuses", func(t *testing.T, _ *process, _ string) {}, 300 * time.Millisecond},
		{"is a black hole", func(t *testing.T, _ *process, target string) { startFirewall(t).drop(t, "tcp dport "+portOf(target)) }, 1500 * time.Millisecond},
		{"is killed with its client", func(t *testing.T, d *process, _ string) { d.kill(t) }, 1500 * time.Millisecond},
	} {
		t.Run("the target "+c.name, func(t *testing.T) {
			need(t, "nft")
			t.Parallel()
			app, laptop := startLedger(t), startLedger(t)
			target := laptop.Addr().String()
			if strings.Contains(c.name, "refuses") {
				target = freeAddr(t)
			}
			addr := freeAddr(t)
			s := startServer(t, "--drain-timeout", "1s", "--config", write(t, t.TempDir(), "culvert.yaml", oneEntrypoint(addr, memberList(app.Addr().String())), 0o600))
			d := s.divertTo(t, "devices", target, "--percent", "100")
			defer d.kill(t)
			if target == laptop.Addr().String() {
				if v := visitLedger(addr, answerTime); v.err != nil || laptop.count(v.nonce) != 1 {
					t.Errorf("the divert carries nothing: %v", v.err)
				}
			}
			c.begin(t, d, target)
			var first, slowest time.Duration
			for i := range 2 {
				v := visitLedger(addr, answerTime)
				if v.err != nil {
					t.Errorf("visit %d: %v after %v", i, v.err, v.took)
					continue
				}
				if a, b := app.count(v.nonce), laptop.count(v.nonce); a != 1 || b != 0 {
					t.Errorf("visit %d ran %d times in production and %d times at the target", i, a, b)
				}
				if i == 0 {
					first = v.took
				}
				slowest = max(slowest, v.took)
			}
			t.Logf("the first visitor had its answer after %v, the slowest after %v", first, slowest)
			if first > c.within || slowest > c.within {
				t.Errorf("the first visitor had its answer after %v, the slowest after %v, want %v at most", first, slowest, c.within)
			}
		})
	}
}

// The choices of a divert: what is open moves if asked, a target that is down fails if asked, a share, a host, and the source
// that a header tells.
func TestDivertChoices(t *testing.T) {
	t.Parallel()
	app, laptop := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "laptop", "127.0.0.1:0")
	secure, secureLaptop := startTLS(t, "app"), startTLS(t, "laptop")
	plain, behind, tlsAddr := freeAddr(t), freeAddr(t), freeAddr(t)
	s := startServer(t, "--config", write(t, t.TempDir(), "culvert.yaml", fmt.Sprintf(`
entrypoints:
  - {name: plain, addr: %q, routes: [{upstream: app}]}
  - {name: behind, addr: %q, proxy_protocol: {accept: auto, trusted: [127.0.0.50]}, routes: [{upstream: app}]}
  - {name: secure, addr: %q, protocol: tls, routes: [{upstream: secure}]}
upstreams:
  - {name: app, members: %s}
  - {name: secure, members: %s}
`, plain, behind, tlsAddr, memberList(app.addr), memberList(secure)), 0o600))
	end := func(p *process) {
		t.Helper()
		p.signal(t, syscall.SIGINT)
		if code := p.wait(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}

	open, other := openTalk(t, "tcp", "127.0.0.140", plain), openTalk(t, "tcp", "127.0.0.2", plain)
	open.mustSay(t, "before")
	other.mustSay(t, "before")
	d := s.divertTo(t, "plain", laptop.addr, "--source", "127.0.0.140", "--existing", "move")
	if _, err := open.says("moved", patience); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("--existing move: the open connection has %v", err)
	}
	if by := whoAnswers(t, "tcp", "127.0.0.140", plain); by != "laptop" {
		t.Errorf("--existing move: then %s answers", by)
	}
	other.mustSay(t, "not mine")
	end(d)

	d = s.divertTo(t, "plain", freeAddr(t), "--source", "127.0.0.140", "--on-down", "fail")
	if err := turnedAway("127.0.0.140", plain, 3*time.Second); err != nil {
		t.Errorf("--on-down fail: %v", err)
	}
	if by := whoAnswers(t, "tcp", "127.0.0.2", plain); by != "app" {
		t.Errorf("--on-down fail: another is answered by %s", by)
	}
	end(d)

	d = s.divertTo(t, "plain", laptop.addr, "--percent", "25")
	if n := tally(whoAnswerEach(t, 300, "tcp", "", plain)); n["laptop"] < 40 || n["laptop"] > 115 {
		t.Errorf("--percent 25: %v", n)
	}
	end(d)

	d = s.divertTo(t, "behind", laptop.addr, "--source", "192.0.2.0/24")
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 198.51.100.1 4000 23\r\n":    "laptop",
		"PROXY TCP4 198.51.100.7 192.0.2.1 4000 23\r\n":    "app",
		proxyV2TCP4("192.0.2.8:4000", "198.51.100.1:23"):   "laptop",
		proxyV2TCP6("[2001:db8::1]:4000", "[::1]:23"):      "app",
		proxyV2TCP6("[::ffff:192.0.2.9]:4000", "[::1]:23"): "laptop",
	} {
		k := openTalk(t, "tcp", "127.0.0.50", behind)
		if _, err := io.WriteString(k.Conn, header); err != nil {
			t.Fatal(err)
		}
		if s := k.mustSay(t, "hello"); s.by != want {
			t.Errorf("with the header %q %s answers, want %s", header, s.by, want)
		}
	}
	end(d)

	d = s.divertTo(t, "secure", secureLaptop, "--sni", "*.example.com")
	for host, want := range map[string]string{"api.example.com": "laptop", "example.com": "app", "api.example.org": "app", "": "app"} {
		if by, err := hello(tlsAddr, host, 0, 0); err != nil || by != want {
			t.Errorf("--sni: for %q %s answers, %v, want %s", host, by, err, want)
		}
	}
	end(d)
	if by, err := hello(tlsAddr, "api.example.com", 0, 0); err != nil || by != "app" {
		t.Errorf("after the divert: %s %v", by, err)
	}
}

// A reload of the file, of routes above all, leaves a divert where it is, and one whose entrypoint has gone ends.
func TestDivertOutlivesAReload(t *testing.T) {
	t.Parallel()
	app, next, laptop := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "next", "127.0.0.1:0"), startTCP(t, "laptop", "127.0.0.1:0")
	addr := freeAddr(t)
	dir := t.TempDir()
	file := write(t, dir, "culvert.yaml", oneEntrypoint(addr, memberList(app.addr)), 0o600)
	s := startServer(t, "--config", file)
	d := s.divertTo(t, "devices", laptop.addr, "--source", "127.0.0.140")
	write(t, dir, "culvert.yaml", oneEntrypoint(addr, memberList(next.addr), "balance: first"), 0o600)
	s.mustAPI(t, "POST", "/api/reload", nil)
	if by := whoAnswers(t, "tcp", "127.0.0.140", addr); by != "laptop" {
		t.Errorf("the device: %s answers", by)
	}
	if by := whoAnswers(t, "tcp", "127.0.0.2", addr); by != "next" {
		t.Errorf("another: %s answers", by)
	}
	write(t, dir, "culvert.yaml", strings.ReplaceAll(oneEntrypoint(freeAddr(t), memberList(next.addr)), "devices", "others"), 0o600)
	s.mustAPI(t, "POST", "/api/reload", nil)
	if code := d.wait(t); code != 1 {
		t.Errorf("the entrypoint has gone: exit code %d\n%s", code, d.out)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if code, answer := s.api(t, "POST", "/api/reload", nil); code/100 == 2 || !strings.Contains(answer, "culvert.yaml") {
		t.Errorf("a reload of a file that has gone: %d %s", code, answer)
	}
}
