package app

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"culvert/internal/admin"
	"culvert/internal/auth"
	"culvert/internal/config"
)

func TestStatusShowsWhatAClientSaysOfItself(t *testing.T) {
	begun := time.Now()
	s, _ := startServer(t, serverConfig(t.TempDir()))
	port := freePort(t)
	cfg := config.NewClient(config.Mixed)
	cfg.URLs = []*url.URL{{Scheme: "wss", Host: s.ControlAddr().String(), Path: "/connect"}}
	cfg.Token = auth.NewSecret(token)
	cfg.ID, cfg.Labels = "edge-1", map[string]string{"rack": "b", "site": "north"}
	cfg.Upstreams = upstreams(t, "app.example.com/api=http://127.0.0.1:3000", fmt.Sprintf("%d=127.0.0.1:22", port))
	c, err := NewClient(cfg, Version{"test", "sha"}, discard)
	if err != nil {
		t.Fatal(err)
	}
	r := start(c.Run)
	defer func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}()
	await(t, "the client", func() bool {
		clients := s.sessions.Clients()
		return len(clients) == 1 && len(clients[0].Tunnels) == 2
	})

	got := s.status()
	want := admin.Status{
		Info: admin.Info{Version: "test", SHA: "sha", Mode: "mixed"},
		Clients: []admin.Client{{
			ClientID: "edge-1", Labels: cfg.Labels,
			Upstreams: []string{"app.example.com/api=http://127.0.0.1:3000", fmt.Sprintf("%d=127.0.0.1:22", port)},
			Tunnels: []admin.Tunnel{
				{Name: "http/app.example.com/api", Address: "app.example.com/api on " + s.HTTPAddr().String()},
				{Name: fmt.Sprintf("tcp/%d", port), Address: fmt.Sprintf("127.0.0.1:%d", port)},
			},
			Links: 1,
		}},
	}
	of := cmpopts.IgnoreFields(admin.Client{}, "RemoteAddr", "Since", "Instance", "RTTMillis")
	if diff := cmp.Diff(want, got, of, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(admin.Info{}, "StartTime", "Hostname")); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if c := got.Clients[0]; c.RemoteAddr == "" || c.Instance == "" || c.Since.Before(got.Info.StartTime) || got.Info.StartTime.Before(begun) {
		t.Errorf("started at %s, and the client is %+v", got.Info.StartTime, c)
	}
}
