//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A member is a TCP or UDP service that answers each line or datagram with its name, the address it came from, and the
// line itself: a test sees from outside who was asked, and which connections are the same.
type member struct {
	name, addr string
	accepted   atomic.Int64 // connections, or datagrams
	open       atomic.Int64
	stop       func()
}

// startTCP starts a member at an address, with port 0 for a free one.
func startTCP(t *testing.T, name, addr string) *member {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{name: name, addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { m.serveTCP(ctx, l) })
	m.stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(m.stop)
	return m
}

// serveTCP serves until the context ends, and resets then what is open.
func (m *member) serveTCP(ctx context.Context, l net.Listener) {
	var wait sync.WaitGroup
	defer wait.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		c := conn.(*net.TCPConn)
		m.accepted.Add(1)
		m.open.Add(1)
		wait.Go(func() {
			defer m.open.Add(-1)
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.SetLinger(0); c.Close() })()
			m.converse(c)
		})
	}
}

func (m *member) converse(c net.Conn) {
	lines := bufio.NewReader(c)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "%s %s %s", m.name, c.RemoteAddr(), line); err != nil {
			return
		}
	}
}

// startUDP starts a member that answers datagrams; an empty one with an empty one.
func startUDP(t *testing.T, name, addr string) *member {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{name: name, addr: pc.LocalAddr().String()}
	var wait sync.WaitGroup
	wait.Go(func() { m.serveUDP(pc.(*net.UDPConn)) })
	m.stop = sync.OnceFunc(func() { pc.Close(); wait.Wait() })
	t.Cleanup(m.stop)
	return m
}

func (m *member) serveUDP(pc *net.UDPConn) {
	_ = pc.SetReadBuffer(4 << 20) // less is granted without privileges
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an answer of before was refused
		}
		m.accepted.Add(1)
		answer := buf[:0:0]
		if n > 0 {
			answer = fmt.Appendf(nil, "%s %s %s", m.name, from, buf[:n])
		}
		_, _ = pc.WriteToUDPAddrPort(answer, from) // as any datagram, it may be lost
	}
}

// startMember starts a member as a process of its own, which can be killed and frozen.
func startMember(t *testing.T, network, name string) (p *process, addr string) {
	t.Helper()
	p = start(t, program{argv: []string{"/proc/self/exe"}, env: []string{serveKey + "=" + network + " " + name + " 127.0.0.1:0"}})
	return p, p.line(t, `listening on (\S+)\n`)[1]
}

// againMember starts it once more at the address that it had.
func againMember(t *testing.T, network, name, addr string) *process {
	t.Helper()
	p := start(t, program{argv: []string{"/proc/self/exe"}, env: []string{serveKey + "=" + network + " " + name + " " + addr}})
	p.line(t, `listening on (\S+)\n`)
	return p
}

// serveMember is the whole life of such a process; what is "NETWORK NAME ADDRESS".
func serveMember(what string) error {
	f := strings.Fields(what)
	if len(f) != 3 {
		return fmt.Errorf("%s=%q: want a network, a name and an address", serveKey, what)
	}
	m := &member{name: f[1]}
	if f[0] == "udp" {
		pc, err := net.ListenPacket("udp", f[2])
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "listening on", pc.LocalAddr())
		m.serveUDP(pc.(*net.UDPConn))
		return nil
	}
	l, err := net.Listen("tcp", f[2])
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "listening on", l.Addr())
	m.serveTCP(context.Background(), l)
	return nil
}

// An answer of a member.
type said struct{ by, peer, line string }

func parseSaid(answer string) (said, error) {
	f := strings.SplitN(strings.TrimSuffix(answer, "\n"), " ", 3)
	if len(f) != 3 {
		return said{}, fmt.Errorf("got %q, want a member's answer", answer)
	}
	return said{f[0], f[1], f[2]}, nil
}

// A talk is a connection to a member that stays open.
type talk struct {
	net.Conn
	lines *bufio.Reader
}

func newTalk(c net.Conn) *talk { return &talk{c, bufio.NewReader(c)} }

// dialFrom connects from a source address, "" for any.
func dialFrom(network, source, addr string, within time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: within}
	if source != "" {
		ip, err := netip.ParseAddr(source)
		if err != nil {
			return nil, err
		}
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
		}
	}
	return d.Dial(network, addr)
}

// openTalk opens a connection that ends with the test at the latest.
func openTalk(t *testing.T, network, source, addr string) *talk {
	t.Helper()
	c, err := dialFrom(network, source, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newTalk(c)
}

// says sends a line, or a datagram, and wants its answer.
func (k *talk) says(line string, within time.Duration) (said, error) {
	_ = k.SetDeadline(time.Now().Add(within)) // fails only on a closed connection
	if _, udp := k.Conn.(*net.UDPConn); udp {
		if _, err := io.WriteString(k.Conn, line); err != nil {
			return said{}, err
		}
		var buf [2048]byte
		n, err := k.Read(buf[:])
		if err != nil {
			return said{}, err
		}
		return parseSaid(string(buf[:n]))
	}
	if _, err := io.WriteString(k.Conn, line+"\n"); err != nil {
		return said{}, err
	}
	answer, err := k.lines.ReadString('\n')
	if err != nil {
		return said{}, fmt.Errorf("after %q: %w", answer, err)
	}
	return parseSaid(answer)
}

// mustSay is says that has to succeed soon.
func (k *talk) mustSay(t *testing.T, line string) said {
	t.Helper()
	s, err := k.says(line, patience)
	if err != nil {
		t.Fatalf("from %v to %v: %v", k.LocalAddr(), k.RemoteAddr(), err)
	}
	if s.line != line {
		t.Fatalf("sent %q, the member had %q", line, s.line)
	}
	return s
}

// mustSayAgain is mustSay for datagrams right after a flood, when the kernel may have no room for the first ones.
func (k *talk) mustSayAgain(t *testing.T, line string) (s said) {
	t.Helper()
	eventually(t, patience, "an answer to a datagram", func(context.Context) (err error) {
		s, err = k.says(line, time.Second)
		return err
	})
	return s
}

// whoAnswers asks once, over a connection of its own.
func whoAnswers(t *testing.T, network, source, addr string) string {
	t.Helper()
	k := openTalk(t, network, source, addr)
	defer k.Close()
	return k.mustSay(t, "who").by
}

// whoAnswerEach asks so often, one connection after the other.
func whoAnswerEach(t *testing.T, times int, network, source, addr string) []string {
	t.Helper()
	var by []string
	for range times {
		by = append(by, whoAnswers(t, network, source, addr))
	}
	return by
}

// visitMember is one connection of a visitor, who asks a member one line and goes.
func visitMember(addr string, within time.Duration) visit {
	v := visit{begun: time.Now()}
	v.err = func() error {
		c, err := net.DialTimeout("tcp", addr, within)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		defer c.Close()
		s, err := newTalk(c).says("hello", within-time.Since(v.begun))
		v.by = s.by
		return err
	}()
	v.took = time.Since(v.begun)
	return v
}

// tally counts names.
func tally(names []string) map[string]int {
	n := map[string]int{}
	for _, name := range names {
		n[name]++
	}
	return n
}

func TestMembersSayWhoTheyAre(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		p, addr := startMember(t, network, "a")
		k := openTalk(t, network, "127.0.0.2", addr)
		if s := k.mustSay(t, "hello there"); s.by != "a" || s.peer != k.LocalAddr().String() {
			t.Errorf("%s: %+v, from %v", network, s, k.LocalAddr())
		}
		p.kill(t)
		if network == "tcp" {
			againMember(t, network, "b", addr)
			if v := visitMember(addr, patience); v.err != nil || v.by != "b" {
				t.Errorf("started again: %+v", v)
			}
		}
	}
}
