//go:build linux

package e2e

import (
	"context"
	"errors"
	"net/http"
	"testing"
)

func TestClientsOfOneHostShareItsRequests(t *testing.T) {
	s := startServer(t)
	var origins []*origin
	for _, name := range []string{"a", "b", "c"} {
		o := newOrigin(t, name)
		origins = append(origins, o)
		s.client(t, "--upstream", "www.example.com="+o.URL)
	}
	s.members(t, 3, patience)
	v := newVisitor(t, s.data) // one connection of the visitor: requests are shared, not connections
	for range 30 {
		v.must200(t, "www.example.com", "/")
	}
	for _, o := range origins {
		if n := o.requests.Load(); n != 10 {
			t.Errorf("%s had %d of 30 requests", o.name, n)
		}
	}
}

// The state folder makes a client the same after a restart: the new process takes the old one's place at once.
func TestRestartedClientTakesItsOwnPlace(t *testing.T) {
	s := startServer(t)
	o := newOrigin(t, "a")
	tunnel := freeAddr(t)
	state := t.TempDir()
	client := func() *process {
		return s.client(t, "--state-dir", state, "--upstream", port(t, tunnel)+"="+o.addr())
	}
	c := client()
	s.members(t, 1, patience)
	accepts(t, "tcp", tunnel)
	before, err := s.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range rounds(3, 30) {
		c.kill(t)
		c = client()
		c.line(t, `tunnel is up`)
		after, err := s.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(after.Clients) != 1 || after.Clients[0].ClientID != before.Clients[0].ClientID {
			t.Errorf("clients after the restart: %+v, before: %+v", after.Clients, before.Clients)
		}
		accepts(t, "tcp", tunnel)
	}
}

func TestHAProxyInFront(t *testing.T) {
	need(t, "haproxy")
	health, front := freeAddr(t), freeAddr(t)
	s := startServer(t, "--health-addr", health)
	s.client(t, "--upstream", newOrigin(t, "a").URL)
	s.members(t, 1, patience)
	startHAProxy(t, `
listen http
  mode http
  bind `+front+`
  option httpchk GET /readyz
  default-server inter 100ms fall 1 rise 1
  server a `+s.data+` check port `+port(t, health)+`
`)
	v := newVisitor(t, front)
	v.answers(t, "www.example.com", "/", http.StatusOK)
	s.stop(t)
	eventually(t, patience, "HAProxy sees that the server is gone", func(ctx context.Context) error {
		code, _, _, err := v.get(ctx, "www.example.com", "/")
		if err == nil && code != http.StatusServiceUnavailable {
			err = errors.New(http.StatusText(code))
		}
		return err
	})
}
