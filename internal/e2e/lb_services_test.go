//go:build linux

package e2e

import (
	"context"
	"net"
	"os/user"
	"strings"
	"testing"
	"time"
)

// startDNS starts dnsmasq, which knows host.example.test as the address given, over UDP and TCP.
func startDNS(t *testing.T, host string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	start(t, program{argv: []string{
		path("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-facility=-", "--user=" + me.Username,
		"--pid-file=", "--listen-address=127.0.0.1", "--bind-interfaces", "--port=" + port(t, addr),
		"--host-record=host.example.test," + host, "--txt-record=big.example.test," + strings.Repeat("x", 200) + "," + strings.Repeat("y", 200) + "," + strings.Repeat("z", 250),
	}}).line(t, `started, version`)
	return addr
}

// resolver asks one DNS server, over UDP first and over TCP for what does not fit.
func resolver(addr string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
}

// Real services through the balancer, each as an operator has it. DNS and a VPN are in udp_test.go.
func TestLBCarriesServices(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		need(t, "redis-server", "redis-cli")
		t.Parallel()
		addr := freeAddr(t)
		startLB(t, oneEntrypoint(addr, memberList(startRedis(t)), `health: {expect: {send: "PING\r\n", expect: "+PONG"}, interval: 200ms, timeout: 200ms}`))
		redisRoundTrip(t, addr)
	})
	t.Run("postgres", func(t *testing.T) {
		need(t, "postgres", "initdb", "psql")
		t.Parallel()
		addr := freeAddr(t)
		startLB(t, oneEntrypoint(addr, memberList(startPostgres(t)), "health: {tcp: {}}"))
		postgresRoundTrip(t, addr)
	})
	t.Run("ssh", func(t *testing.T) {
		need(t, "sshd", "ssh", "ssh-keygen")
		t.Parallel()
		addr := freeAddr(t)
		service := startSSHD(t)
		startLB(t, oneEntrypoint(addr, memberList(service.addr), `health: {expect: {expect: "SSH-2.0"}}`))
		sshRoundTrip(t, service, addr)
	})
}

// A datagram through a tunnel is a datagram, of any size, and a socket of a visitor one of the client's.
func TestTunnelKeepsDatagrams(t *testing.T) {
	t.Parallel()
	app := startUDP(t, "app", "127.0.0.1:0")
	s := startServer(t, "--drain-timeout", "2s")
	tunnel := freeAddr(t)
	s.clientProgram(t, "udp client", "--upstream", port(t, tunnel)+"="+app.addr)
	k := openTalk(t, "udp", "127.0.0.2", tunnel)
	var at said
	until(t, "the tunnel answers", func() bool {
		var err error
		at, err = k.says("hello", 200*time.Millisecond)
		return err == nil
	})
	for range rounds(1000, 20000) {
		if s := k.mustSay(t, "on"); s.peer != at.peer {
			t.Fatalf("the flow went from %s to %s", at.peer, s.peer)
		}
	}
	had := app.accepted.Load()
	buf := make([]byte, 64<<10)
	for _, size := range []int{0, 1, 1400, 9000, 60000, 0} {
		_ = k.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
		if _, err := k.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		n, err := k.Read(buf)
		if err != nil || size == 0 && n != 0 || size > 0 && n < size {
			t.Errorf("a datagram of %d bytes: the answer has %d, %v", size, n, err)
		}
	}
	if n := app.accepted.Load() - had; n != 6 {
		t.Errorf("the service had %d datagrams, want 6", n)
	}
}

// Two clients offer one port of UDP: each flow stays with its own, and moves when that one is gone.
func TestTunnelUDPFlowMoves(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--drain-timeout", "2s")
	tunnel := freeAddr(t)
	clients := map[string]*process{}
	for _, name := range []string{"a", "b"} {
		app := startUDP(t, name, "127.0.0.1:0")
		clients[name] = s.client(t, "--id", name, "--upstream", "udp/"+port(t, tunnel)+"="+app.addr)
	}
	s.members(t, 2, patience)
	var one, two *talk
	var at, other said
	until(t, "two visitors are with two clients", func() bool {
		var errs [2]error
		one, two = openTalk(t, "udp", "", tunnel), openTalk(t, "udp", "", tunnel)
		at, errs[0] = one.says("one", time.Second)
		other, errs[1] = two.says("two", time.Second)
		return errs == [2]error{} && at.by != other.by
	})
	for range 100 {
		if s := one.mustSay(t, "on"); s.peer != at.peer {
			t.Fatalf("the flow went from %+v to %+v", at, s)
		}
	}
	clients[at.by].kill(t)
	began, lost := time.Now(), 0
	until(t, "the flow moves", func() bool {
		s, err := one.says("moved", 100*time.Millisecond)
		if err != nil {
			lost++
		}
		return err == nil && s.by == other.by
	})
	t.Logf("the flow moved %v after its client was killed, %d datagrams were lost", time.Since(began), lost)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the flow moved after %v", took)
	}
	if s := two.mustSay(t, "still"); s.peer != other.peer {
		t.Errorf("the other flow went from %+v to %+v", other, s)
	}
}
