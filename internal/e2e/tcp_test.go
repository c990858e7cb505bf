//go:build linux

package e2e

import (
	"testing"
)

// offerTCP starts a server and a client that offers a service under another port, and returns the tunnel's address.
func offerTCP(t *testing.T, service string) (s *server, tunnel string) {
	t.Helper()
	s = startServer(t)
	tunnel = freeAddr(t)
	s.clientProgram(t, "tcp client", "--upstream", port(t, tunnel)+"="+service)
	accepts(t, "tcp", tunnel)
	return s, tunnel
}

func TestTCPTunnelCarriesSSH(t *testing.T) {
	need(t, "sshd", "ssh", "ssh-keygen")
	service := startSSHD(t)
	s, tunnel := offerTCP(t, service.addr)
	base := s.resources(t)
	sshRoundTrip(t, service, tunnel)
	s.settles(t, base)
	// Four sessions at once share the tunnel.
	t.Run("at once", func(t *testing.T) {
		for _, name := range []string{"one", "two", "three", "four"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				sshRoundTrip(t, service, tunnel)
			})
		}
	})
	s.settles(t, base)
}

func TestTCPTunnelCarriesPostgres(t *testing.T) {
	need(t, "postgres", "initdb", "psql")
	s, tunnel := offerTCP(t, startPostgres(t))
	base := s.resources(t)
	postgresRoundTrip(t, tunnel)
	s.settles(t, base)
}

func TestTCPTunnelCarriesRedis(t *testing.T) {
	need(t, "redis-server", "redis-cli")
	s, tunnel := offerTCP(t, startRedis(t))
	base := s.resources(t)
	redisRoundTrip(t, tunnel)
	s.settles(t, base)
	m := s.metrics(t)
	if n := sum(m, "tcp_dataplane_connections_total", `port="`+port(t, tunnel)+`"`); n < 20 {
		t.Errorf("tcp_dataplane_connections_total: %v connections of that port, want 20 or more", n)
	}
	if n := sum(m, "tcp_dataplane_connections_gauge"); n != 0 {
		t.Errorf("tcp_dataplane_connections_gauge: %v, want 0 when all are closed", n)
	}
	if in, out := sum(m, "tcp_dataplane_bytes_total", `direction="in"`), sum(m, "tcp_dataplane_bytes_total", `direction="out"`); in < 1<<20 || out < 1<<20 {
		t.Errorf("tcp_dataplane_bytes_total: %v in, %v out, want a MiB or more each", in, out)
	}
}

func TestTCPPortsOfOneHost(t *testing.T) {
	need(t, "redis-server", "redis-cli")
	service := startRedis(t)
	s := startServer(t, "--data-addr", "127.0.0.2") // where the same port is free
	s.data = "127.0.0.2:" + port(t, s.data)
	s.clientProgram(t, "tcp client", "--upstream", "127.0.0.1", "--ports", port(t, service))
	tunnel := "127.0.0.2:" + port(t, service)
	accepts(t, "tcp", tunnel)
	redisRoundTrip(t, tunnel)
}
