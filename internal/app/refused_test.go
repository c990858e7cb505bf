package app

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// refused is how often connections were refused, by metric and reason.
func refused(t *testing.T, s *Server) map[string]float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		if name, ok := strings.CutSuffix(f.GetName(), "_connections_refused_total"); ok {
			for _, m := range f.GetMetric() {
				counts[name+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
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
			counts := refused(t, s)
			return counts["http_dataplane source"] == 1 && counts["tcp_dataplane source"] == 1
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
		counts := refused(t, s)
		return counts["http_dataplane head"] == 1 && counts["culvert_controlplane head"] == 1 && counts["culvert_controlplane handshake"] == 1
	})
}
