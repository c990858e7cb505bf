package dataplane

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"culvert/internal/admin"
)

// A member whose visitors' TLS is passed through is checked through TLS, too, and what is wrong with it is in the state.
func TestChecksSpeakTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "app.example.com" && r.TLS.ServerName == "app.example.com" {
			_, _ = io.WriteString(w, r.Method+" says ready")
		}
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.StartTLS()
	defer srv.Close()
	d := start(t)
	for i, tt := range []struct{ health, want string }{
		{"http: {host: app.example.com, expect: GET says ready}, tls: {insecure: true}", ""},
		{"http: {host: app.example.com, method: HEAD}, tls: {insecure: true}", ""},
		{"http: {expect: ready}, tls: {insecure: true}", "GET /: 200 OK, body: closed without an answer"},
		{"tcp: {}, tls: {insecure: true}", ""},
		{"tcp: {}, tls: {server_name: app.example.com}", "certificate"},
		{"tcp: {}, tls: {}", "certificate"},
		{"http: {path: /}", "400 Bad Request"}, // in the clear
	} {
		apply(t, d, read(t, `
entrypoints: [{name: app, addr: "$addr", routes: [{upstream: app}]}]
upstreams: [{name: app, members: [{address: "$app"}], health: {interval: 10s, timeout: 10s, $health}, connect: {timeout: $timeout}}]
`, map[string]string{"addr": free(t, "tcp"), "app": srv.Listener.Addr().String(), "health": tt.health, "timeout": fmt.Sprint(i+1, "s")}))
		var m admin.Member
		await(t, "the first check of "+tt.health, func() bool { m = d.State().Upstreams[0].Members[0]; return m.Check != "" })
		if up := m.Check == admin.CheckUp; up != (tt.want == "") || !strings.Contains(m.LastError, tt.want) {
			t.Errorf("%s: %+v, want %q", tt.health, m, tt.want)
		}
	}
}
