//go:build linux

package e2e

import (
	"net"
	"os"
	"strings"
	"testing"
)

// The harness against itself: each of Debian's servers starts, answers without a tunnel, and ends.

func TestDebianServersAnswerDirectly(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		need(t, "redis-server", "redis-cli")
		redisRoundTrip(t, startRedis(t))
	})
	t.Run("postgres", func(t *testing.T) {
		need(t, "postgres", "initdb", "psql")
		postgresRoundTrip(t, startPostgres(t))
	})
	t.Run("sshd", func(t *testing.T) {
		need(t, "sshd", "ssh", "ssh-keygen")
		s := startSSHD(t)
		sshRoundTrip(t, s, s.addr)
	})
	t.Run("nginx", func(t *testing.T) {
		need(t, "nginx", "curl")
		addr := startNginx(t, t.TempDir())
		if got := must(t, program{argv: []string{"curl", "-sS", "http://" + addr + "/plain"}}); got != "plain 127.0.0.1\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("prometheus", func(t *testing.T) {
		need(t, "prometheus", "curl")
		dir := t.TempDir()
		addr := startPrometheus(t, dir, write(t, dir, "prometheus.yaml", "scrape_configs: []\n", 0o600))
		must(t, program{argv: []string{"curl", "-sSf", "http://" + addr + "/-/ready"}})
	})
	t.Run("haproxy", func(t *testing.T) {
		need(t, "haproxy", "redis-server", "redis-cli")
		front := freeAddr(t)
		startHAProxy(t, "listen redis\n  mode tcp\n  bind "+front+"\n  server a "+startRedis(t)+"\n")
		accepts(t, "tcp", front)
		redisRoundTrip(t, front)
	})
	t.Run("dnsmasq", func(t *testing.T) {
		need(t, "dnsmasq")
		addr := startDNS(t, "192.0.2.1")
		ips, err := resolver(addr).LookupNetIP(t.Context(), "ip4", "host.example.test")
		if err != nil || len(ips) != 1 || ips[0].String() != "192.0.2.1" {
			t.Errorf("%v %v", ips, err)
		}
		text, err := resolver(addr).LookupTXT(t.Context(), "big.example.test")
		if err != nil || len(text) != 1 || len(text[0]) != 650 {
			t.Errorf("a large answer: %.80q %v", text, err)
		}
	})
	t.Run("haproxy to nginx, with PROXY headers", func(t *testing.T) {
		need(t, "haproxy", "nginx", "ip")
		addAddresses(t, "fd00::2")
		four, six, log := startProxiedNginx(t)
		for _, send := range proxySenders() {
			in4, in6 := freeAddr(t), freeAddrOn(t, "::1")
			startHAProxy(t, chainFront(send, in4, in6, four, six))
			chained(t, log, "direct-"+strings.ReplaceAll(send, " ", "-"), in4, in6)
		}
	})
}

func TestPathsOfNeeds(t *testing.T) {
	if path("no-such-program-anywhere") != "" {
		t.Error("found what is not there")
	}
	if p := path("sh"); p == "" || !strings.HasPrefix(p, "/") {
		t.Errorf("sh is at %q", p)
	}
}

func TestNamespaceHasALoopback(t *testing.T) {
	if os.Getenv(insideKey) == "" {
		t.Skip("only root runs in a namespace of its own")
	}
	for _, addr := range []string{"127.0.0.1:8000", "[::1]:8000"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
}
