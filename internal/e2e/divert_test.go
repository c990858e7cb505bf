//go:build linux

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A named service greets each visitor with its name and sends lines back. One that was told "break" says nothing more to that
// visitor, as a program at a breakpoint does.
type named struct{ addr string }

func startNamed(t *testing.T, name, listen string, wrap func(net.Listener) net.Listener) named {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	n := named{l.Addr().String()}
	if wrap != nil {
		l = wrap(l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				if _, err := io.WriteString(c, name+"\n"); err != nil {
					return
				}
				for lines := bufio.NewReader(c); ; {
					line, err := lines.ReadString('\n')
					if err != nil {
						return
					}
					if line == "break\n" {
						<-ctx.Done()
						return
					}
					if _, err := io.WriteString(c, line); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wait.Wait() })
	return n
}

// greetedFrom connects from an address of this machine, and says who greeted.
func greetedFrom(t *testing.T, source, addr string) (c *echoed, greeting string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return greeted(t, conn)
}

func greeted(t *testing.T, conn net.Conn) (c *echoed, greeting string) {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	c = &echoed{Conn: conn, lines: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(patience))
	greeting, err := c.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("no greeting: %v", err)
	}
	return c, strings.TrimSpace(greeting)
}

// goesTo has new visitors from a source greeted by one of some services.
func goesTo(t *testing.T, source, addr, services string, times int) {
	t.Helper()
	for range times {
		c, got := greetedFrom(t, source, addr)
		if !strings.Contains(services, got) {
			t.Errorf("a visitor from %s came to %s, want %s", source, got, services)
		}
		c.echoes(t, patience)
		c.Close()
	}
}

// divert starts `culvert divert` of this server, and waits until it has begun.
func (s *server) divert(t *testing.T, args ...string) (p *process, id string) {
	t.Helper()
	p = s.clientProgram(t, "divert", args...)
	return p, p.line(t, `Its id is ([0-9a-f]+)\.`)[1]
}

// command runs a culvert command that asks the server something.
func (s *server) command(t *testing.T, words string, args ...string) result {
	t.Helper()
	argv := append([]string{culvert()}, strings.Fields(words)...)
	argv = append(argv, "--url", "wss://"+s.control, "--token-file", s.state+"/token")
	return complete(t, program{argv: append(argv, args...)})
}

// freeze stops a process, and returns when all of its threads have stopped.
func (p *process) freeze(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	eventually(t, patience, "the process has stopped", func(context.Context) error {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid()))
		if err != nil {
			return err
		}
		for _, path := range stats {
			stat, err := os.ReadFile(path)
			if _, after, _ := strings.Cut(string(stat), ") "); err == nil && !strings.HasPrefix(after, "T") {
				return fmt.Errorf("%s: %s", path, stat)
			}
		}
		return nil
	})
}

// configured starts a server with a configuration file.
func configured(t *testing.T, file string, args ...string) *server {
	t.Helper()
	return startServer(t, append([]string{"--config", write(t, t.TempDir(), "culvert.yaml", file, 0o600)}, args...)...)
}

// family is a version of IP, with an address for the server, one for a device and one for all others.
type family struct{ name, host, device, other string }

func families(t *testing.T) []family {
	t.Helper()
	list := []family{{"IPv4", "127.0.0.1", "127.0.0.77", "127.0.0.1"}}
	if os.Getenv(insideKey) == "" {
		t.Log("without a network namespace of its own IPv6 has no second address: IPv4 alone")
		return list
	}
	need(t, "ip")
	must(t, program{argv: []string{"ip", "-6", "addr", "replace", "fd00:23::77/128", "dev", "lo", "nodad"}})
	return append(list, family{"IPv6", "::1", "fd00:23::77", "::1"})
}

// addrOf is a free address of the family.
func (f family) addr(t *testing.T) string {
	t.Helper()
	return net.JoinHostPort(f.host, port(t, freeAddr(t)))
}

// traffic talks through an open connection until it is stopped, and then says how many bytes came back of those sent.
func traffic(t *testing.T, c *echoed) (stop func() (sent, back int)) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	var sent, back int
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			line := fmt.Sprintf("%d %s\n", n, strings.Repeat("x", n%500))
			_ = c.SetDeadline(time.Now().Add(patience))
			_, err := io.WriteString(c, line)
			sent += len(line)
			got, readErr := c.lines.ReadString('\n')
			if err != nil || readErr != nil || got != line {
				t.Errorf("the open connection: %v, %v", err, readErr)
				return
			}
			back += len(got)
		}
	}()
	return func() (int, int) {
		close(quit)
		<-done
		return sent, back
	}
}

// TestDivertOfADevice is seed 004: one device's live traffic goes to a laptop behind a tunnel, sits at a breakpoint there
// without harm to anyone else, and goes back to production when the laptop is done.
func TestDivertOfADevice(t *testing.T) {
	for _, f := range families(t) {
		t.Run(f.name, func(t *testing.T) {
			app1, app2 := startNamed(t, "app1", "127.0.0.1:0", nil), startNamed(t, "app2", "127.0.0.1:0", nil)
			laptop := startNamed(t, "laptop", "127.0.0.1:0", nil)
			devices := f.addr(t)
			log := t.TempDir() + "/access.log"
			s := configured(t, `
access_log: `+log+`
entrypoints:
  - {name: devices, addr: "`+devices+`", routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: "`+app1.addr+`"}, {address: "`+app2.addr+`"}]}
`)
			const production = "app1 app2"
			accepts(t, "tcp", devices)
			goesTo(t, f.device, devices, production, 2)
			others, _ := greetedFrom(t, f.other, devices)
			devicesOld, _ := greetedFrom(t, f.device, devices)
			stopOthers, stopOld := traffic(t, others), traffic(t, devicesOld)

			p, id := s.divert(t, "--entrypoint", "devices", "--source", f.device, "--to", laptop.addr, "--for", "10m", "--drain-timeout", "1s")
			goesTo(t, f.device, devices, "laptop", 3)
			goesTo(t, f.other, devices, production, 3)
			if r := s.command(t, "status"); !strings.Contains(r.out, id) || !strings.Contains(r.out, "from "+f.device+"/") {
				t.Errorf("status: %d\n%s", r.code, r.out)
			}

			atBreakpoint, greeting := greetedFrom(t, f.device, devices)
			if greeting != "laptop" {
				t.Fatalf("the device came to %s", greeting)
			}
			if _, err := io.WriteString(atBreakpoint, "break\nhello?\n"); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			goesTo(t, f.other, devices, production, 100)
			goesTo(t, f.device, devices, "laptop", 3) // the laptop's other connections go on, too
			t.Logf("103 visits beside the breakpoint took %s", time.Since(begun).Round(time.Millisecond))

			p.signal(t, syscall.SIGINT)
			came := 7
			eventually(t, patience, "the device is back in production", func(context.Context) error {
				if c, got := greetedFrom(t, f.device, devices); !strings.Contains(production, got) {
					c.Close()
					came++
					return fmt.Errorf("it came to %s", got)
				}
				return nil
			})
			goesTo(t, f.device, devices, production, 4)
			if code := p.wait(t); code != 0 || !strings.Contains(p.out.String(), fmt.Sprintf("The divert has ended: interrupted. %d connections came here.", came)) {
				t.Errorf("culvert divert: code %d\n%s", code, p.out.String())
			}
			for name, stop := range map[string]func() (int, int){"another's": stopOthers, "the device's own old": stopOld} {
				if sent, back := stop(); sent != back || sent == 0 {
					t.Errorf("%s connection, open all the time: %d bytes sent, %d came back", name, sent, back)
				} else {
					t.Logf("%s connection, open all the time: %d bytes there and back", name, sent)
				}
			}
			s.line(t, `msg="divert begins" subsystem=control divert=`+id+` by="the shared token" .*entrypoint=devices`)
			s.line(t, `msg="divert ends" subsystem=control divert=`+id+` .*reason="its client went away"`)
			s.explains(t, f.device, id, log, came)
		})
	}
}

// explains checks that the records and the access log say why the device went to the laptop.
func (s *server) explains(t *testing.T, device, id, log string, came int) {
	t.Helper()
	r := s.command(t, "explain", "--source", device, "--output", "json", "--last", "50")
	var found struct {
		Connections []struct {
			ID, Route, Member, ClosedBy string
			BytesOut                    int64
		}
	}
	if err := json.Unmarshal([]byte(r.out), &found); err != nil || r.code != 0 {
		t.Fatalf("explain: code %d, %v\n%s", r.code, err, r.out)
	}
	diverted := 0
	for _, c := range found.Connections {
		if c.Route != "divert/"+id {
			continue
		}
		diverted++
		one := s.command(t, "explain "+c.ID)
		if !strings.Contains(one.out, "route       divert/"+id+", the first that matched") {
			t.Errorf("explain %s:\n%s", c.ID, one.out)
		}
	}
	if diverted != came {
		t.Errorf("%d records of diverted connections, want %d:\n%s", diverted, came, r.out)
	}
	eventually(t, patience, "the access log has them", func(context.Context) error {
		p, err := os.ReadFile(log)
		if n := strings.Count(string(p), " route=divert/"+id+" "); err == nil && n != came {
			err = fmt.Errorf("it has %d:\n%s", n, p)
		}
		return err
	})
}

// TestDivertOfFlows: a flow of UDP that never goes idle moves at once, and back; another's does not notice.
func TestDivertOfFlows(t *testing.T) {
	for _, f := range families(t) {
		t.Run(f.name, func(t *testing.T) {
			production, laptop := startPackets(t, "production"), startPackets(t, "laptop")
			voice := f.addr(t)
			s := configured(t, `
drain_timeout: 1s # flows count as open until they are idle
entrypoints:
  - {name: voice, protocol: udp, addr: "`+voice+`", routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: "`+production+`"}]}
`)
			device, other := dialPackets(t, f.device, voice), dialPackets(t, f.other, voice)
			device.answeredBy(t, "production")
			other.answeredBy(t, "production")
			p, _ := s.divert(t, "--entrypoint", "voice", "--source", f.device, "--to", laptop)
			device.answeredBy(t, "laptop")
			other.answeredBy(t, "production")
			dialPackets(t, f.device, voice).answeredBy(t, "laptop")
			if code := p.stop(t); code != 0 {
				t.Errorf("culvert divert: code %d\n%s", code, p.out.String())
			}
			device.answeredBy(t, "production")
			other.answeredBy(t, "production")
		})
	}
}

// startPackets is a service of UDP that answers each datagram with its name and the datagram.
func startPackets(t *testing.T, name string) (addr string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(p)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append([]byte(name+" "), p[:n]...), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().String()
}

// packets is one flow.
type packets struct {
	net.Conn
	sent int
}

func dialPackets(t *testing.T, source, addr string) *packets {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}).Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &packets{Conn: c}
}

// answeredBy sends datagrams until one is answered by the service: the first after a move may meet the old one.
func (p *packets) answeredBy(t *testing.T, name string) {
	t.Helper()
	eventually(t, patience, "an answer of "+name, func(context.Context) error {
		p.sent++
		want := fmt.Sprintf("%s %d", name, p.sent)
		_ = p.SetDeadline(time.Now().Add(time.Second))
		_, _ = fmt.Fprintf(p, "%d", p.sent)
		got := make([]byte, 100)
		n, err := p.Read(got)
		if err == nil && string(got[:n]) != want {
			err = fmt.Errorf("got %q, want %q", got[:n], want)
		}
		return err
	})
}

// TestDivertOfAHost diverts TLS by the name in the ClientHello, and nothing is decrypted on the way.
func TestDivertOfAHost(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	certificate := web.TLS.Certificates
	web.Close()
	secure := func(l net.Listener) net.Listener { return tls.NewListener(l, &tls.Config{Certificates: certificate}) }
	for _, f := range families(t) {
		t.Run(f.name, func(t *testing.T) {
			production := startNamed(t, "production", "127.0.0.1:0", secure)
			laptop := startNamed(t, "laptop", "127.0.0.1:0", secure)
			front := f.addr(t)
			s := configured(t, `
entrypoints:
  - {name: web, protocol: tls, addr: "`+front+`", routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: "`+production.addr+`"}]}
`)
			accepts(t, "tcp", front)
			visit := func(source, host string) string {
				d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
				c, err := tls.DialWithDialer(d, "tcp", front, &tls.Config{ServerName: host, InsecureSkipVerify: true})
				if err != nil {
					t.Fatal(err)
				}
				e, greeting := greeted(t, c)
				e.echoes(t, patience)
				e.Close()
				return greeting
			}
			p, _ := s.divert(t, "--entrypoint", "web", "--source", f.device, "--sni", "api.example.com", "--to", laptop.addr)
			for _, tt := range []struct{ source, host, want string }{
				{f.device, "api.example.com", "laptop"}, {f.device, "www.example.com", "production"}, {f.other, "api.example.com", "production"},
			} {
				if got := visit(tt.source, tt.host); got != tt.want {
					t.Errorf("%s from %s came to %s, want %s", tt.host, tt.source, got, tt.want)
				}
			}
			if code := p.stop(t); code != 0 {
				t.Errorf("culvert divert: code %d\n%s", code, p.out.String())
			}
			if got := visit(f.device, "api.example.com"); got != "production" {
				t.Errorf("after the divert the device came to %s", got)
			}
		})
	}
}

// TestLaptopThatIsNotThere: a debugger that is not started, a laptop whose lid is closed and one that is cut off lose nobody a
// connection.
func TestLaptopThatIsNotThere(t *testing.T) {
	app := startNamed(t, "app", "127.0.0.1:0", nil)
	laptop := startNamed(t, "laptop", "127.0.0.1:0", nil)
	devices := freeAddr(t)
	s := configured(t, `
entrypoints:
  - {name: devices, addr: "`+devices+`", routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: "`+app.addr+`"}]}
`)
	accepts(t, "tcp", devices)
	const device = "127.0.0.77"
	falls := func(t *testing.T) {
		t.Helper()
		begun := time.Now()
		goesTo(t, device, devices, "app", 1)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("the device waited %s", took)
		} else {
			t.Logf("the device waited %s", took.Round(time.Millisecond))
		}
	}
	t.Run("nothing listens", func(t *testing.T) {
		p, id := s.divert(t, "--entrypoint", "devices", "--source", device, "--to", freeAddr(t))
		falls(t)
		r := s.command(t, "explain", "--source", device, "--last", "1")
		if !strings.Contains(r.out, "refused after") || !strings.Contains(r.out, "given to    "+app.addr) {
			t.Errorf("explain does not say that %s was tried:\n%s", id, r.out)
		}
		p.stop(t)
	})
	t.Run("frozen", func(t *testing.T) {
		p, _ := s.divert(t, "--entrypoint", "devices", "--source", device, "--to", laptop.addr)
		goesTo(t, device, devices, "laptop", 1)
		p.freeze(t)
		t.Cleanup(func() { p.signal(t, syscall.SIGCONT) }) // in any case, so that it can end
		falls(t)
	})
	t.Run("killed", func(t *testing.T) {
		p, _ := s.divert(t, "--entrypoint", "devices", "--source", device, "--to", laptop.addr)
		goesTo(t, device, devices, "laptop", 1)
		p.kill(t)
		falls(t)
	})
	t.Run("and visitors are to fail", func(t *testing.T) {
		p, _ := s.divert(t, "--entrypoint", "devices", "--source", device, "--to", freeAddr(t), "--on-down", "fail")
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(device)}}).Dial("tcp", devices)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil || err == io.EOF {
			t.Errorf("got %v, want a reset", err)
		}
		p.stop(t)
	})
}

// TestHowADivertEnds has the exit codes and words that its user sees, and who may divert.
func TestHowADivertEnds(t *testing.T) {
	t.Parallel()
	app := startNamed(t, "app", "127.0.0.1:0", nil)
	devices := freeAddr(t)
	tokens := t.TempDir() + "/tokens.yaml"
	token := func(name string, grant ...string) string {
		r := complete(t, program{argv: append([]string{culvert(), "token", "new", "--tokens", tokens, "--name", name, "--output", "json"}, grant...)})
		var made struct{ Token string }
		if err := json.Unmarshal([]byte(r.stdout), &made); err != nil {
			t.Fatalf("token new: %v\n%s", err, r.out)
		}
		return write(t, t.TempDir(), "token", made.Token, 0o600)
	}
	anna, eve := token("anna", "--divert", "dev*"), token("eve", "--hosts", "*", "--ports", "1-65535", "--read")
	s := configured(t, `
tokens: `+tokens+`
entrypoints:
  - {name: devices, addr: "`+devices+`", routes: [{upstream: app}]}
  - {name: web, addr: "`+freeAddr(t)+`", routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: "`+app.addr+`"}]}
`)
	by := func(token string, args ...string) *process {
		argv := []string{culvert(), "divert", "--url", "wss://" + s.control, "--token-file", token, "--source", "127.0.0.77", "--to", app.addr}
		return start(t, program{argv: append(argv, args...)})
	}
	begins := `Its id is ([0-9a-f]+)\.`
	for _, tt := range []struct {
		name  string
		token string
		args  []string
		end   func(p *process) // after it has begun; nil if it does not begin
		code  int
		says  string
	}{
		{"its time is over", anna, []string{"--entrypoint", "devices", "--for", "1s"}, func(*process) {}, 0, "The divert has ended: its time is over."},
		{"an operator ends it", anna, []string{"--entrypoint", "devices"}, func(p *process) {
			if r := s.command(t, "divert end "+p.line(t, begins)[1]); r.code != 0 {
				t.Errorf("divert end: code %d\n%s", r.code, r.out)
			}
		}, 1, "the server has ended the divert: ended by an operator"},
		{"a token without the scope", eve, []string{"--entrypoint", "devices"}, nil, 1, "the server refuses the divert: the token may not divert traffic of entrypoint devices: it is granted no diverts"},
		{"a token for another entrypoint", anna, []string{"--entrypoint", "web"}, nil, 1, "the token may not divert traffic of entrypoint web: it is granted diverts of dev*"},
		{"no such entrypoint", s.state + "/token", []string{"--entrypoint", "device"}, nil, 1, `no entrypoint "device"; there are devices, `},
		{"no such entrypoint, for one who may not know of the others", anna, []string{"--entrypoint", "dev"}, nil, 1, `no entrypoint "dev"; there are devices` + "\n"},
		{"the token is revoked", anna, []string{"--entrypoint", "devices"}, func(*process) {
			must(t, program{argv: []string{culvert(), "token", "revoke", "--tokens", tokens, "anna"}})
		}, 1, "the token has been revoked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := by(tt.token, tt.args...)
			if tt.end != nil {
				p.line(t, begins)
				tt.end(p)
			}
			if code := p.wait(t); code != tt.code || !strings.Contains(p.out.String(), tt.says) {
				t.Errorf("code %d, want %d and %q\n%s", code, tt.code, tt.says, p.out.String())
			}
		})
	}
	if r := s.command(t, "divert list"); r.code != 0 || !strings.Contains(r.out, "Nothing is diverted.") {
		t.Errorf("divert list: code %d\n%s", r.code, r.out)
	}
	if r := s.command(t, "divert end 0123abcd"); r.code != 1 || !strings.Contains(r.out, `no divert has the id "0123abcd"`) {
		t.Errorf("divert end: code %d\n%s", r.code, r.out)
	}
}
