//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestManyClientsOfOneServer(t *testing.T) {
	clients := 200
	if raceEnabled {
		clients = 40 // 200 detectors want more memory than a small machine has
	}
	s := startServer(t)
	watch := watchMemory(t, s.process)
	o := newOrigin(t, "a")
	begin := time.Now()
	var all []*process
	for i := range clients { // all at once: more than may be unauthenticated together, so some have to come again
		all = append(all, s.client(t, "--id", fmt.Sprintf("c%d", i), "--upstream", fmt.Sprintf("h%d.example.com=%s", i, o.URL)))
	}
	s.members(t, clients, 2*time.Minute)
	t.Logf("%d clients within %v", clients, time.Since(begin))

	v := newVisitor(t, s.data)
	for i := range clients {
		if got, want := v.must200(t, fmt.Sprintf("h%d.example.com", i), "/"), "a GET /\n"; got != want {
			t.Errorf("h%d.example.com: got %q, want %q", i, got, want)
		}
	}
	st, err := s.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, c := range st.Clients {
		listed[c.ClientID] = strings.Join(c.Upstreams, ",")
	}
	for i := range clients {
		if got, want := listed[fmt.Sprintf("c%d", i)], fmt.Sprintf("h%d.example.com=%s", i, o.URL); got != want {
			t.Errorf("status of c%d: got %q, want %q", i, got, want)
		}
	}
	grown := watch.grewAtMost(t, "server", int64(clients)*512<<10)
	t.Logf("%.0f KiB a client", float64(grown)/1024/float64(clients))

	v.client.CloseIdleConnections()
	s.settlesWithout(t, all...)
}
