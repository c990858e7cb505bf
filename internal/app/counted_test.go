package app

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// refused is how often connections were refused, by the beginning of the metric's name and the reason.
func refused(t *testing.T, s *Server) map[string]float64 {
	return counts(t, s, "_connections_refused_total")
}

// counts are the values of all counters and gauges whose name ends so, by the rest of the name and the label's value.
func counts(t *testing.T, s *Server, suffix string) map[string]float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		name, ok := strings.CutSuffix(f.GetName(), suffix)
		if !ok {
			continue
		}
		for _, m := range f.GetMetric() {
			key := name
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			values[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() // one of them is nil, and 0
		}
	}
	return values
}

// knock connects, says something and waits for the other end to close the connection.
func knock(t *testing.T, addr, say string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return // refused before the kernel said that it was open
	}
	defer c.Close()
	_, _ = io.WriteString(c, say) // it may be closed already
	_, _ = io.Copy(io.Discard, c)
}

// say sends something to the control port, over TLS, and returns what comes before the other end closes the connection.
func say(t *testing.T, s *Server, text string) string {
	t.Helper()
	c, err := tls.Dial("tcp", s.ControlAddr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c, text) // it may be refused midway
	}()
	answer, _ := io.ReadAll(c)
	c.Close()
	<-sent
	return string(answer)
}

func TestSourcesThatAreNotAllowedAreRefusedAndCounted(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	t.Run("on the control port", func(t *testing.T) {
		cfg := serverConfig(t.TempDir())
		cfg.ControlAllowIPs = elsewhere
		s, _ := startServer(t, cfg)
		knock(t, s.ControlAddr().String(), "")
		await(t, "the count", func() bool { return refused(t, s)["culvert_controlplane source"] == 1 })
		if code, _ := get(t, s, "app.example.com", "/"); code != 404 {
			t.Errorf("a visitor got %d, want 404", code)
		}
	})
	t.Run("on the data plane", func(t *testing.T) {
		cfg := serverConfig(t.TempDir())
		cfg.DataAllowIPs = elsewhere
		s, _ := startServer(t, cfg)
		port := freePort(t)
		startClient(t, s.ControlAddr(), upstreams(t, fmt.Sprintf("%d=%s", port, service(t, "echo")))...)
		await(t, "the client", func() bool { return len(s.sessions.Clients()) == 1 && len(s.sessions.Clients()[0].Tunnels) == 1 })
		knock(t, s.HTTPAddr().String(), "")
		knock(t, fmt.Sprintf("127.0.0.1:%d", port), "")
		await(t, "the counts", func() bool {
			n := refused(t, s)
			return n["http_dataplane source"] == 1 && n["tcp_dataplane source"] == 1
		})
	})
}

func TestRequestsThatAreNotWholeAreRefusedAndCounted(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	knock(t, s.HTTPAddr().String(), "no HTTP\r\n\r\n")
	knock(t, s.ControlAddr().String(), "no TLS\r\n\r\n")
	if answer := say(t, s, "GET /status HTTP/1.1\r\nHost: x\r\nA: "+strings.Repeat("a", 64<<10)+"\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 431 ") {
		t.Errorf("a large head on the control port got %q, want 431", answer)
	}
	// The rest of a body that never comes must not be waited for.
	if answer := say(t, s, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"); !strings.HasPrefix(answer, "HTTP/1.1 413 ") {
		t.Errorf("half a body on the control port got %q, want 413", answer)
	}
	await(t, "the counts", func() bool {
		n := refused(t, s)
		return n["http_dataplane head"] == 1 && n["culvert_controlplane head"] == 1 && n["culvert_controlplane handshake"] == 1
	})
}

func TestServiceThatRefusesIsCounted(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	port, closed := freePort(t), freePort(t)
	startClient(t, s.ControlAddr(), upstreams(t, fmt.Sprintf("%d=127.0.0.1:%d", port, closed), fmt.Sprintf("app.example.com=http://127.0.0.1:%d", closed))...)
	await(t, "the client", func() bool { return len(s.sessions.Clients()) == 1 && len(s.sessions.Clients()[0].Tunnels) == 2 })
	if answer, err := ask(port, "hi"); err == nil {
		t.Errorf("a service that is not there answers %q", answer)
	}
	if code, _ := get(t, s, "app.example.com", "/"); code != 502 {
		t.Errorf("a website that is not there: got %d, want 502", code)
	}
	want := map[string]float64{"tcp_dataplane refused": 1, "http_dataplane refused": 1}
	if diff := cmp.Diff(want, counts(t, s, "_failed_opens_total")); diff != "" {
		t.Errorf("failed opens (-want +got):\n%s", diff)
	}
}

func TestRefusedOffersAreCounted(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	own := s.HTTPAddr().(*net.TCPAddr).Port
	startClient(t, s.ControlAddr(), upstreams(t, fmt.Sprintf("%d=127.0.0.1:1", own), "tls/db.example.com=127.0.0.1:1", "app.example.com=http://127.0.0.1:1")...)
	await(t, "the count", func() bool { return counts(t, s, "_refused_total")["culvert_offers"] == 2 })
}

func TestReconnectsAreCounted(t *testing.T) {
	cfg := serverConfig(t.TempDir())
	cfg.ControlPort = freePort(t)
	s, r := startServer(t, cfg)
	startClient(t, s.ControlAddr(), upstreams(t, "app.example.com=http://127.0.0.1:1")...)
	await(t, "the client", func() bool { return len(s.sessions.Clients()) == 1 })
	if n := counts(t, s, "_reconnects_total")["culvert_client"]; n != 0 {
		t.Errorf("%v reconnects before any", n)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s, _ = startServer(t, cfg)
	await(t, "the client's return", func() bool { return counts(t, s, "_reconnects_total")["culvert_client"] == 1 })
}

func TestConnectedClientsAreCounted(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	connected := func(http, tcp float64) {
		t.Helper()
		await(t, fmt.Sprintf("%v clients of HTTP and %v of TCP", http, tcp), func() bool {
			n := counts(t, s, "_controlplane_connected_gauge")
			return n["http"] == http && n["tcp"] == tcp
		})
	}
	port := freePort(t)
	both := startClient(t, s.ControlAddr(), upstreams(t, "app.example.com=http://127.0.0.1:1", "other.example.com=http://127.0.0.1:1", fmt.Sprintf("%d=127.0.0.1:1", port))...)
	connected(1, 1)
	one := startClient(t, s.ControlAddr(), upstreams(t, "app.example.com=http://127.0.0.1:1")...)
	connected(2, 1)
	for _, c := range []*running{both, one} {
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	}
	connected(0, 0)
}
