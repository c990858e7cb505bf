//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

func udpFile(addr, members string, entry string, more ...string) string {
	text := fmt.Sprintf("entrypoints:\n  - name: udp\n    protocol: udp\n    addr: %q\n    routes: [{upstream: app}]\n%supstreams:\n  - name: app\n    members: %s\n", addr, entry, members)
	for _, line := range more {
		text += "    " + line + "\n"
	}
	return text
}

// What nginx needs reuseport and a good configuration for needs nothing here: a socket of a visitor is one socket to
// one member for as long as it talks, on however many cores, and over a reload.
func TestLBUDPFlowStays(t *testing.T) {
	for _, f := range []struct{ name, local, host string }{{"IPv4", "127.0.0.1:0", "127.0.0.1"}, {"IPv6", "[::1]:0", "::1"}} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			const visitors, datagrams = 20, 1000
			a, b := startUDP(t, "a", f.local), startUDP(t, "b", f.local)
			addr := freeAddrOn(t, f.host)
			text := udpFile(addr, memberList(a.addr, b.addr), "")
			lb := startLBWith(t, []string{"GOMAXPROCS=4"}, text)
			type home struct {
				*talk
				said
			}
			homes := make([]home, visitors)
			for i := range homes {
				homes[i].talk = openTalk(t, "udp", "", addr)
				homes[i].said = homes[i].mustSay(t, "first")
			}
			talkAll := func(first, count int) {
				t.Helper()
				var wait sync.WaitGroup
				for i := range homes {
					wait.Go(func() {
						lost := 0
						for n := range count {
							line := fmt.Sprintf("%d of %d", first+n, i)
							s, err := homes[i].says(line, 2*time.Second)
							if isTimeout(err) {
								if lost++; lost > 3 { // a busy machine may lose some
									t.Errorf("visitor %d: %d datagrams without an answer", i, lost)
									return
								}
								continue
							}
							if err != nil || s.by != homes[i].by || s.peer != homes[i].peer || s.line != line {
								t.Errorf("visitor %d, datagram %q: %+v %v, at first %+v", i, line, s, err, homes[i].said)
								return
							}
						}
					})
				}
				wait.Wait()
			}
			talkAll(0, datagrams)
			lb.reload(t, text+"  - {name: other, members: "+memberList(b.addr)+"}\n")
			talkAll(datagrams, 50)
			// A member that is taken out of the file takes no new flows; the reload moves only the flows it must.
			by := map[string]int{}
			for _, h := range homes {
				by[h.by]++
			}
			if by["a"] != visitors/2 || by["b"] != visitors/2 {
				t.Errorf("%d flows went %v", visitors, by)
			}
			m := lb.metrics(t)
			t.Logf("%d datagrams each of %d visitors, one flow each; metrics: %v flows", datagrams, visitors, sum(m, "culvert_udp_flows"))
			if n := sum(m, "culvert_udp_flows"); n != visitors {
				t.Errorf("culvert_udp_flows: %v, want %d", n, visitors)
			}
		})
	}
}

// Datagrams of other sizes, the empty one and the largest, arrive as they were sent, each as one.
func TestLBUDPKeepsDatagrams(t *testing.T) {
	t.Parallel()
	a := startUDP(t, "a", "127.0.0.1:0")
	addr := freeAddr(t)
	startLB(t, udpFile(addr, memberList(a.addr), ""))
	k := openTalk(t, "udp", "", addr)
	buf := make([]byte, 64<<10)
	for _, size := range []int{0, 1, 0, 0, 1400, 9000, 60000, 0} {
		_ = k.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
		if _, err := k.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		n, err := k.Read(buf)
		if err != nil || size == 0 && n != 0 || size > 0 && n < size {
			t.Fatalf("a datagram of %d bytes: the answer has %d, %v", size, n, err)
		}
	}
	if n := a.accepted.Load(); n != 8 {
		t.Errorf("the member had %d datagrams, want 8", n)
	}
}

// A member that dies or freezes loses its flows to another one at once, and no visitor gets a datagram that nobody sent.
func TestLBUDPFlowMovesWhenItsMemberIsGone(t *testing.T) {
	for _, f := range []struct {
		name   string
		health []string
		begin  func(t *testing.T, p *process)
		within time.Duration
		lost   int           // datagrams of one visitor without an answer
		wait   time.Duration // for the answer to each
	}{
		{name: "killed", begin: func(t *testing.T, p *process) { p.kill(t) }, within: 2 * time.Second, lost: 1, wait: time.Second},
		{
			name: "frozen, with a check", health: []string{`health: {udp: {send: "ping", expect: "m"}, interval: 300ms, timeout: 300ms, fall: 2}`},
			begin:  func(t *testing.T, p *process) { p.freeze(t) },
			within: 3 * time.Second, lost: 30, wait: 100 * time.Millisecond,
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			procs, addrs := map[string]*process{}, []string{}
			for _, name := range []string{"m1", "m2"} {
				p, addr := startMember(t, "udp", name)
				procs[name], addrs = p, append(addrs, addr)
			}
			addr := freeAddr(t)
			startLB(t, udpFile(addr, memberList(addrs...), "", f.health...))
			k, other := openTalk(t, "udp", "", addr), openTalk(t, "udp", "", addr)
			victim := k.mustSay(t, "first").by
			otherAt := other.mustSay(t, "first")
			if otherAt.by == victim {
				t.Fatal("two flows are on one of two members")
			}
			defer procs[victim].kill(t) // a frozen one would not end when asked
			f.begin(t, procs[victim])
			began, lost := time.Now(), 0
			buf := make([]byte, 2048)
			for i := 0; ; i++ {
				_ = k.SetDeadline(time.Now().Add(f.wait)) // fails only on a closed connection
				if _, err := fmt.Fprintf(k, "datagram %d", i); err != nil {
					t.Fatalf("datagram %d: %v", i, err)
				}
				n, err := k.Read(buf)
				if err == nil && n == 0 {
					t.Fatal("the visitor got an empty datagram that nobody sent")
				}
				if err == nil {
					s, err := parseSaid(string(buf[:n]))
					if err != nil || s.by == victim {
						t.Fatalf("%+v %v from the member that is gone", s, err)
					}
					break
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("datagram %d: the visitor has %v", i, err)
				}
				if lost++; time.Since(began) > 10*time.Second {
					t.Fatal("the flow does not move")
				}
			}
			t.Logf("%d datagrams without an answer, the flow moved after %v", lost, time.Since(began))
			if took := time.Since(began); lost > f.lost || took > f.within {
				t.Errorf("%d datagrams were lost and the flow moved after %v, want %d and %v at most", lost, took, f.lost, f.within)
			}
			if s := other.mustSay(t, "last"); s.peer != otherAt.peer || s.by != otherAt.by {
				t.Errorf("the other flow went from %+v to %+v", otherAt, s)
			}
		})
	}
}

// Spoofed sources (T25, S11) fill the table of an entrypoint and no more: they get nothing, flows that are there go on, and one
// source has its share of flows alone. How much memory a million of them takes is in udp_test.go.
func TestLBUDPTableIsBounded(t *testing.T) {
	t.Parallel()
	a := startUDP(t, "a", "127.0.0.1:0")
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // takes and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	flood, calm := freeAddr(t), freeAddr(t)
	const sources = 1500
	lb := startLB(t, fmt.Sprintf(`
entrypoints:
  - {name: flood, protocol: udp, addr: %q, max_flows: 1000, idle_timeout: 20s, routes: [{upstream: silent}]}
  - {name: calm, protocol: udp, addr: %q, max_flows: 10, max_flows_per_source: 2, routes: [{upstream: app}]}
upstreams:
  - {name: silent, members: %s}
  - {name: app, members: %s}
`, flood, calm, memberList(silent.LocalAddr().String()), memberList(a.addr)))
	k := openTalk(t, "udp", "127.0.0.9", calm)
	at := k.mustSay(t, "before")
	before, _ := lb.memory(t)
	var kept []net.Conn
	for i := range sources {
		c, err := dialFrom("udp", fmt.Sprintf("127.%d.%d.%d", 10+i>>16, i>>8&0xff, i&0xff), flood, patience)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("spoofed")) // as any datagram, it may be lost
		if i%30 == 0 && len(kept) < 1000 {
			kept = append(kept, c)
			defer c.Close()
			continue
		}
		c.Close()
	}
	until(t, "the flood has been read", func() bool {
		m := lb.metrics(t)
		return sum(m, "culvert_udp_flows", `entrypoint="flood"`) == 1000 && sum(m, "culvert_udp_dropped_total", `entrypoint="flood"`) > 0
	})
	for _, c := range kept {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond)) // fails only on a closed connection
		if n, err := c.Read(make([]byte, 100)); err == nil || !isTimeout(err) {
			t.Errorf("a source that no member has answered got %d bytes, %v", n, err)
		}
	}
	now, _ := lb.memory(t)
	t.Logf("%d sources: 1000 flows, memory %s before, %s after", sources, mebibytes(before), mebibytes(now))
	if now-before > 50<<20 && !raceEnabled {
		t.Errorf("memory grew from %s to %s", mebibytes(before), mebibytes(now))
	}
	if s := k.mustSay(t, "after"); s.peer != at.peer {
		t.Errorf("the flow of the other entrypoint went from %+v to %+v", at, s)
	}
	// One source may have two flows there: the third gets nothing, and the first goes on.
	openTalk(t, "udp", "127.0.0.9", calm).mustSay(t, "second")
	third := openTalk(t, "udp", "127.0.0.9", calm)
	if s, err := third.says("third", 300*time.Millisecond); err == nil {
		t.Errorf("the third flow of a source that may have two: %+v", s)
	}
	openTalk(t, "udp", "127.0.0.10", calm).mustSay(t, "another source")
	k.mustSay(t, "still")
}

// mode: per_packet shares datagrams of one socket, as those of syslog, and flows end when idle.
func TestLBUDPPerPacketAndIdle(t *testing.T) {
	t.Parallel()
	a, b := startUDP(t, "a", "127.0.0.1:0"), startUDP(t, "b", "127.0.0.1:0")
	syslog, short := freeAddr(t), freeAddr(t)
	lb := startLB(t, fmt.Sprintf(`
entrypoints:
  - {name: syslog, protocol: udp, addr: %q, mode: per_packet, routes: [{upstream: app}]}
  - {name: short, protocol: udp, addr: %q, idle_timeout: 1s, routes: [{upstream: app}]}
upstreams:
  - {name: app, members: %s}
`, syslog, short, memberList(a.addr, b.addr)))
	k := openTalk(t, "udp", "", syslog)
	for range 20 {
		if _, err := k.Write([]byte("<13>a line")); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "20 datagrams arrive", func() bool { return a.accepted.Load()+b.accepted.Load() == 20 })
	if a.accepted.Load() != 10 {
		t.Errorf("20 datagrams of one socket: a has %d and b %d", a.accepted.Load(), b.accepted.Load())
	}
	s := openTalk(t, "udp", "", short)
	first := s.mustSay(t, "first")
	until(t, "the idle flow ends", func() bool { return sum(lb.metrics(t), "culvert_udp_flows", `entrypoint="short"`) == 0 })
	if again := s.mustSay(t, "again"); again.peer == first.peer {
		t.Errorf("after its end the flow still comes from %s", first.peer)
	}
}

// While the process goes down a flow that is there goes on, a new one is not begun, and no flow holds the process for
// longer than the drain may last.
func TestLBUDPDrain(t *testing.T) {
	t.Parallel()
	a := startUDP(t, "a", "127.0.0.1:0")
	addr, health := freeAddr(t), freeAddr(t)
	b := startLB(t, udpFile(addr, memberList(a.addr), ""), "health_addr: "+health, "ready_grace: 3s", "drain_timeout: 4s")
	k := openTalk(t, "udp", "", addr)
	at := k.mustSay(t, "before")
	probesReadiness(t, health)
	began := time.Now()
	b.signal(t, syscall.SIGTERM)
	for time.Since(began) < 500*time.Millisecond {
		if s := k.mustSay(t, "in the grace"); s.peer != at.peer {
			t.Errorf("the flow went from %s to %s", at.peer, s.peer)
		}
		lasts(t, 20*time.Millisecond)
	}
	openTalk(t, "udp", "", addr).mustSay(t, "a new one, in the grace")
	lasts(t, 3500*time.Millisecond-time.Since(began))
	if s, err := k.says("in the drain", time.Second); err != nil || s.peer != at.peer {
		t.Errorf("in the drain: %+v %v", s, err)
	}
	if s, err := openTalk(t, "udp", "", addr).says("a new one", 200*time.Millisecond); err == nil {
		t.Errorf("a new flow in the drain: %+v", s)
	}
	if code := b.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it ended %v after the signal, want 7 s", took)
	}
}

// A service behind a flow has the visitor's address in each datagram, or in the first; and a balancer in front says it in the
// same way.
func TestLBUDPProxyHeader(t *testing.T) {
	t.Parallel()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	app, debug := startUDP(t, "app", "127.0.0.1:0"), startUDP(t, "debug", "127.0.0.1:0")
	every, first, behind := freeAddr(t), freeAddr(t), freeAddr(t)
	startLB(t, fmt.Sprintf(`
entrypoints:
  - {name: every, protocol: udp, addr: %q, routes: [{upstream: every}]}
  - {name: first, protocol: udp, addr: %q, routes: [{upstream: first}]}
  - name: behind
    protocol: udp
    addr: %q
    proxy_protocol: {accept: auto, trusted: [127.0.0.50]}
    routes: [{match: {source: 192.0.2.0/24}, upstream: debug}, {upstream: app}]
upstreams:
  - {name: every, proxy_protocol: v2, members: %s}
  - {name: first, proxy_protocol: {version: v2, udp_header: first}, members: %[4]s}
  - {name: app, members: %s}
  - {name: debug, members: %s}
`, every, first, behind, memberList(l.LocalAddr().String()), memberList(app.addr), memberList(debug.addr)))
	udp4 := func(source, destination string) string { return proxyV2(1, 0x12, proxyAddresses(source, destination)) }
	buf := make([]byte, 2048)
	for _, addr := range []string{every, first} {
		k := openTalk(t, "udp", "127.0.0.2", addr)
		for i, payload := range []string{"one", "", "three"} {
			if _, err := io.WriteString(k.Conn, payload); err != nil {
				t.Fatal(err)
			}
			_ = l.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
			n, _, err := l.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			want := payload
			if addr == every || i == 0 {
				want = udp4(k.LocalAddr().String(), addr) + payload
			}
			if string(buf[:n]) != want {
				t.Errorf("datagram %d: the member has %q, want %q", i, buf[:n], want)
			}
		}
	}
	// The answers to a balancer have no header: it knows whose they are by the socket.
	for _, c := range []struct{ source, header, want string }{
		{"127.0.0.50", udp4("192.0.2.1:4000", "192.0.2.2:53"), "debug"},
		{"127.0.0.50", udp4("198.51.100.1:4000", "192.0.2.2:53"), "app"},
		{"127.0.0.50", "", ""},
		{"127.0.0.2", "", "app"},
		{"127.0.0.2", udp4("192.0.2.1:4000", "192.0.2.2:53"), ""},
	} {
		k := openTalk(t, "udp", c.source, behind)
		within := patience
		if c.want == "" {
			within = 300 * time.Millisecond
		}
		s, err := k.says(c.header+"hello", within)
		if c.want == "" && !isTimeout(err) || c.want != "" && (err != nil || s.by != c.want || s.line != "hello") {
			t.Errorf("from %s with the header %q: %+v %v, want %q", c.source, c.header, s, err, c.want)
		}
	}
}
