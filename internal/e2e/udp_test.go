//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startDNSMasq starts a server of names that knows who.example to be ip.
func startDNSMasq(t *testing.T, ip string) (addr string, p *process) {
	t.Helper()
	addr = freeAddr(t)
	argv := []string{
		"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--pid-file=", "--no-resolv", "--no-hosts",
		"--bind-interfaces", "--listen-address=127.0.0.1", "--port=" + port(t, addr), "--address=/who.example/" + ip,
		"--txt-record=long.example," + strings.Repeat("x", 250) + "," + strings.Repeat("y", 250) + "," + strings.Repeat("z", 250),
	}
	if os.Geteuid() == 0 {
		argv = append(argv, "--user=root")
	}
	p = start(t, program{argv: argv})
	p.line(t, "started, version")
	return addr, p
}

// who asks a server of names at an address who who.example is. Each question comes from a socket of its own.
func who(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if network != "udp" {
			return nil, fmt.Errorf("asked over %s", network)
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	ips, err := r.LookupNetIP(ctx, "ip4", "who.example.")
	if err != nil {
		return "", err
	}
	return ips[0].Unmap().String(), nil
}

// answersDNS waits until questions are answered.
func answersDNS(t *testing.T, addr string) {
	t.Helper()
	eventually(t, patience, "an answer from "+addr, func(ctx context.Context) error {
		_, err := who(ctx, addr)
		return err
	})
}

func TestDNSIsBalancedAndSurvivesADeath(t *testing.T) {
	need(t, "dnsmasq")
	one, first := startDNSMasq(t, "192.0.2.1")
	two, _ := startDNSMasq(t, "192.0.2.2")
	front := freeAddr(t)
	startLB(t, `
entrypoints:
  - {name: dns, protocol: udp, addr: "`+front+`", idle_timeout: 5s, routes: [{upstream: resolvers}]}
upstreams:
  - name: resolvers
    members: [{address: "`+one+`"}, {address: "`+two+`"}]
`)
	answersDNS(t, front)
	got := map[string]int{}
	for range 40 {
		ip, err := who(t.Context(), front)
		if err != nil {
			t.Fatal(err)
		}
		got[ip]++
	}
	if got["192.0.2.1"] != 20 || got["192.0.2.2"] != 20 {
		t.Errorf("40 questions were answered so: %v, want half by each", got)
	}
	first.kill(t)
	for i := range 40 { // none is lost
		ip, err := who(t.Context(), front)
		if err != nil || ip != "192.0.2.2" {
			t.Errorf("question %d after one was killed: %q, %v", i, ip, err)
		}
	}
}

func TestUDPTunnelCarriesDNS(t *testing.T) {
	need(t, "dnsmasq")
	one, first := startDNSMasq(t, "192.0.2.1")
	two, _ := startDNSMasq(t, "192.0.2.2")
	s := startServer(t)
	front := freeAddr(t)
	tunnel := "udp/" + port(t, front)
	s.client(t, "--upstream", tunnel+"="+one)
	other := s.clientProgram(t, "udp client", "--upstream", port(t, front)+"="+two)
	s.members(t, 2, patience)
	answersDNS(t, front)
	got := map[string]int{}
	for range 40 {
		ip, err := who(t.Context(), front)
		if err != nil {
			t.Fatal(err)
		}
		got[ip]++
	}
	if len(got) != 2 {
		t.Errorf("40 questions were answered so: %v, want some by each", got)
	}
	first.kill(t) // its client refuses from now on
	for i := range 20 {
		if ip, err := who(t.Context(), front); err != nil || ip != "192.0.2.2" {
			t.Errorf("question %d after a service was killed: %q, %v", i, ip, err)
		}
	}
	other.kill(t) // the port closes with the last client that serves; this one is still out there
	st, err := s.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if shown := fmt.Sprint(st.Clients); !strings.Contains(shown, tunnel) {
		t.Errorf("the status does not show %s: %s", tunnel, shown)
	}
}

// A forwarder of names asks each question from another port. The default file has none of them dropped at several hundred a
// second, though its flows may live for a minute each; and a flow that talks keeps its port to the service meanwhile.
func TestDNSNeedsNoSetting(t *testing.T) {
	need(t, "dnsmasq")
	names, _ := startDNSMasq(t, "192.0.2.1")
	vpn := startUDP(t, "vpn", "127.0.0.1:0")
	front := freeAddr(t)
	lb := startLB(t, `
entrypoints:
  - name: udp
    protocol: udp
    addr: "`+front+`"
    routes: [{match: {source: 127.0.0.9}, upstream: vpn}, {upstream: names}]
upstreams:
  - {name: names, members: [{address: "`+names+`"}]}
  - {name: vpn, members: [{address: "`+vpn.addr+`"}]}
`)
	answersDNS(t, front)
	k := openTalk(t, "udp", "127.0.0.9", front)
	at := k.mustSay(t, "first")
	for range 10 {
		k.mustSay(t, "a conversation")
	}
	const questions, pause = 3000, 2 * time.Millisecond
	var asking sync.WaitGroup
	var lost atomic.Int64
	tick := time.NewTicker(pause)
	defer tick.Stop()
	began := time.Now()
	for range questions {
		<-tick.C
		asking.Go(func() {
			if _, err := who(t.Context(), front); err != nil {
				lost.Add(1)
			}
		})
	}
	asking.Wait()
	m := lb.metrics(t)
	dropped := sum(m, "culvert_udp_dropped_total", `reason="table_full"`) + sum(m, "culvert_udp_dropped_total", `reason="per_source"`)
	t.Logf("%d questions in %v, each from another port: %d without an answer; metrics: %v flows, %v replaced, %v datagrams dropped for want of a place",
		questions, time.Since(began).Round(time.Millisecond), lost.Load(), sum(m, "culvert_udp_flows"), sum(m, "culvert_udp_replaced_flows_total"), dropped)
	if lost.Load() > questions/5 || dropped > 0 { // a busy machine may lose some, but none for want of a place
		t.Errorf("%d of %d questions have no answer, %v datagrams found no place", lost.Load(), questions, dropped)
	}
	if sum(m, "culvert_udp_replaced_flows_total") == 0 {
		t.Error("no flow made room for another one: the questions were too few")
	}
	if s := k.mustSayAgain(t, "last"); s.peer != at.peer {
		t.Errorf("the conversation went from %+v to %+v", at, s)
	}
}

// Where descriptors are few, flows of UDP leave half of them to connections, and the log says so.
func TestFlowsLeaveDescriptorsToConnections(t *testing.T) {
	a, u := startTCP(t, "tcp", "127.0.0.1:0"), startUDP(t, "udp", "127.0.0.1:0")
	front, front2 := freeAddr(t), freeAddr(t)
	lb := startLB(t, `
entrypoints:
  - {name: udp, protocol: udp, addr: "`+front+`", routes: [{upstream: udp}]}
  - {name: tcp, addr: "`+front2+`", routes: [{upstream: tcp}]}
upstreams:
  - {name: udp, members: [{address: "`+u.addr+`"}]}
  - {name: tcp, members: [{address: "`+a.addr+`"}]}
`)
	lb.kill(t)
	const descriptors = 200
	lb.args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, descriptors), "sh"}, lb.args...)
	lb.again(t)
	lb.line(t, `fewer flows than max_flows.*flows=100`)
	for range 3 * descriptors {
		c, err := net.Dial("udp", front)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("a flow")) // as any datagram, it may be lost
		c.Close()
	}
	until(t, "the flows have what they may have", func() bool {
		m := lb.metrics(t)
		return sum(m, "culvert_udp_flows") == descriptors/2 && sum(m, "culvert_udp_dropped_total") > 0
	})
	for range 20 {
		openTalk(t, "tcp", "", front2).mustSay(t, "a connection")
	}
	if n := strings.Count(lb.out.String(), "new flows find no place"); n != 1 {
		t.Errorf("the log says %d times that there is no place, want once", n)
	}
}

// answering counts the ports that it was spoken to from, and echoes.
type answering struct {
	net.PacketConn
	mu    sync.Mutex
	ports map[string]int
}

func newAnswering(t *testing.T) *answering {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &answering{PacketConn: c, ports: map[string]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			a.mu.Lock()
			a.ports[from.String()]++
			a.mu.Unlock()
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return a
}

// The case that nginx splits over its workers, and over a reload: one socket is one port for a thousand datagrams.
func TestOneSocketIsOnePortAcrossAReload(t *testing.T) {
	for _, version := range []string{"127.0.0.1", "::1"} {
		a, b := newAnswering(t), newAnswering(t)
		_, p, _ := net.SplitHostPort(freeAddr(t))
		lb := startLB(t, `
entrypoints:
  - {name: game, protocol: udp, addr: ":`+p+`", routes: [{upstream: game}]}
upstreams:
  - name: game
    members: [{address: "`+a.LocalAddr().String()+`"}, {address: "`+b.LocalAddr().String()+`"}]
`)
		var c net.Conn
		eventually(t, patience, "an echo", func(context.Context) (err error) {
			if c, err = net.Dial("udp", net.JoinHostPort(version, p)); err != nil {
				return err
			}
			_ = c.SetDeadline(time.Now().Add(time.Second))
			if _, err = c.Write([]byte("first")); err == nil {
				_, err = c.Read(make([]byte, 10))
			}
			if err != nil {
				c.Close()
			}
			return err
		})
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		for i := range 1000 {
			want := bytes.Repeat([]byte{byte(i)}, i%50) // empty ones too
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 100)
			n, err := c.Read(got)
			if err != nil || !bytes.Equal(got[:n], want) {
				t.Fatalf("datagram %d: %d bytes, %v, want %d", i, n, err, len(want))
			}
			if i == 500 {
				lb.hangUp(t, 1)
			}
		}
		a.mu.Lock()
		b.mu.Lock()
		ports := len(a.ports) + len(b.ports)
		b.mu.Unlock()
		a.mu.Unlock()
		if ports != 1 {
			t.Errorf("%s: the services were spoken to from %d ports, want 1", version, ports)
		}
	}
}

// A VPN, whose two ends take everything from another port for an attack, through a tunnel.
func TestUDPTunnelCarriesOpenVPN(t *testing.T) {
	need(t, "openvpn", "ip", "nsenter", "unshare", "curl")
	if os.Geteuid() != 0 {
		t.Skip("not root: no network of its own for the VPN's other end")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("no /dev/net/tun: this kernel has no tunnel devices")
	}
	far := start(t, program{argv: []string{"unshare", "--net", "sh", "-c", "echo apart; exec sleep 600"}})
	far.line(t, "apart")
	pid := fmt.Sprint(far.pid())
	within := func(argv ...string) []string { return append([]string{"nsenter", "-t", pid, "-n"}, argv...) }
	for _, argv := range [][]string{
		{"ip", "link", "add", "cv0", "type", "veth", "peer", "name", "cv1", "netns", pid},
		{"ip", "addr", "add", "192.168.77.1/24", "dev", "cv0"},
		{"ip", "link", "set", "cv0", "up"},
		within("ip", "link", "set", "lo", "up"),
		within("ip", "addr", "add", "192.168.77.2/24", "dev", "cv1"),
		within("ip", "link", "set", "cv1", "up"),
	} {
		must(t, program{argv: argv})
	}
	t.Cleanup(func() { _ = complete(t, program{argv: []string{"ip", "link", "del", "cv0"}}) })

	key := t.TempDir() + "/static.key"
	must(t, program{argv: []string{"openvpn", "--genkey", "secret", key}})
	vpn := func(here, there string, more ...string) []string {
		return append([]string{
			"openvpn", "--dev-type", "tun", "--ifconfig", here, there, "--secret", key, "--cipher", "AES-256-CBC", "--auth-nocache",
			"--ping", "1", "--ping-exit", "20", "--verb", "3", "--script-security", "0",
		}, more...)
	}
	service, front := freeAddr(t), freeAddr(t)
	_, p, _ := net.SplitHostPort(front)
	end := start(t, program{argv: vpn("10.8.0.1", "10.8.0.2", "--dev", "tun8a", "--local", "127.0.0.1", "--lport", port(t, service))})
	end.line(t, "UDPv4 link local")
	s := startServer(t, "--data-addr", "0.0.0.0")
	s.client(t, "--upstream", "udp/"+p+"="+service)
	s.members(t, 1, patience)
	other := start(t, program{argv: within(vpn("10.8.0.2", "10.8.0.1", "--dev", "tun8b", "--remote", "192.168.77.1", p, "--nobind")...)})
	other.line(t, "Initialization Sequence Completed")
	end.line(t, "Initialization Sequence Completed")

	body := bytes.Repeat([]byte("through the VPN\n"), 1<<14)
	l, err := net.Listen("tcp", "10.8.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }), ReadHeaderTimeout: patience}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = web.Serve(l)
	}()
	t.Cleanup(func() { web.Close(); <-served })
	for range 3 {
		got := must(t, program{argv: within("curl", "-sS", "--max-time", "30", "http://"+l.Addr().String()+"/")})
		if got != string(body) {
			t.Errorf("through the VPN came %d bytes, want %d", len(got), len(body))
		}
	}
	samples := s.metrics(t)
	if flows := sum(samples, "culvert_udp_flows_total"); flows != 1 {
		t.Errorf("the VPN was %v flows, want 1", flows)
	}
	if n := sum(samples, "culvert_udp_datagrams_total"); n < 500 {
		t.Errorf("%v datagrams went through, want those of %d bytes and more", n, 3*len(body))
	}
}

// S11: a million sources that do not exist cost a bounded amount of memory, and get nothing.
func TestFloodOfSpoofedSourcesIsBounded(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: no raw socket to spoof sources with")
	}
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	echo := newAnswering(t)
	front, front2 := freeAddr(t), freeAddr(t)
	lb := startLB(t, `
entrypoints:
  - name: flooded
    protocol: udp
    addr: "`+front+`"
    routes: [{match: {source: 127.0.0.9}, upstream: vpn}, {upstream: silent}]
  - {name: other, protocol: udp, addr: "`+front2+`", routes: [{upstream: echo}]}
upstreams:
  - {name: silent, members: [{address: "`+silent.LocalAddr().String()+`"}]}
  - {name: echo, members: [{address: "`+echo.LocalAddr().String()+`"}]}
  - {name: vpn, members: [{address: "`+startUDP(t, "vpn", "127.0.0.1:0").addr+`"}]}
`)
	eventually(t, patience, "an echo", func(ctx context.Context) error { return echoes(front2) })
	k := openTalk(t, "udp", "127.0.0.9", front)
	at := k.mustSay(t, "before")
	for range 10 {
		k.mustSay(t, "a conversation")
	}
	before := residentOf(t, lb.pid())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	to := netip.MustParseAddrPort(front)
	packet := make([]byte, 20+8+100)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(packet[16:20], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	binary.BigEndian.PutUint16(packet[20:], 5000)
	binary.BigEndian.PutUint16(packet[22:], to.Port())
	binary.BigEndian.PutUint16(packet[24:], 108)
	sources := uint32(1_000_000)
	if raceEnabled {
		sources /= 10 // a race shows in some; the memory is the detector's
	}
	for i := range sources {
		binary.BigEndian.PutUint32(packet[12:], 127<<24|1<<20+i) // 127.16.0.0 and on
		if err := unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, "an echo of another entrypoint after the flood", func(context.Context) error { return echoes(front2) })
	if s := k.mustSayAgain(t, "after"); s.peer != at.peer {
		t.Errorf("a conversation went from %+v to %+v in the flood", at, s)
	}
	grown := residentOf(t, lb.pid()) - before
	t.Logf("a flood of %d sources: %.1f MB more", sources, float64(grown)/1e6)
	if grown > 50<<20 && !raceEnabled {
		t.Errorf("a flood of %d sources cost %d bytes, want at most %d", sources, grown, 50<<20)
	}
}

func echoes(addr string) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadAtLeast(c, make([]byte, 10), 1)
	return err
}

// residentOf is what a process takes of the machine's memory.
func residentOf(t *testing.T, pid int) (bytes int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(rest, &bytes); err != nil {
				t.Fatal(err)
			}
			return bytes << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
