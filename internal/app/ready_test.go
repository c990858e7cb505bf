package app

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// A balancer must hear that a server is going down while the server still serves those who are there.
func TestNotReadyWhileVisitorsAreDrained(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-finish
	}))
	defer site.Close()
	release := sync.OnceFunc(func() { close(finish) })
	defer release()
	cfg := serverConfig(t.TempDir())
	cfg.HealthAddr = "127.0.0.1:0"
	s, r := startServer(t, cfg)
	startClient(t, s.ControlAddr(), upstreams(t, site.URL)...)
	await(t, "the client", func() bool { return len(s.sessions.Clients()) == 1 && len(s.sessions.Clients()[0].Tunnels) == 1 })
	health := func(path string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.health.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{DisableKeepAlives: true}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	await(t, "the server to be ready", func() bool { return health("/readyz") == 200 })
	answered := make(chan int)
	go func() {
		defer close(answered) // also if get gives up
		code, _ := get(t, s, "app.example.com", "/")
		answered <- code
	}()
	<-begun
	r.cancel()
	await(t, "the server to be not ready", func() bool { return health("/readyz") == 503 })
	if code := health("/healthz"); code != 200 {
		t.Errorf("/healthz of a server that drains: got %d, want 200", code)
	}
	release()
	if code := <-answered; code != 200 {
		t.Errorf("the visitor who was there got %d, want 200", code)
	}
}
