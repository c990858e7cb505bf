package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/auth"
)

// grants are bearers by token.
type grants map[string]error

// bearer may do what its error does not speak against.
type bearer struct{ err error }

func (b bearer) Permit(a auth.Action) error {
	if a != auth.Read() {
		return fmt.Errorf("asked for %s", a)
	}
	return b.err
}

func (b bearer) String() string { return "0c5f2a1c" }

func (g grants) authorize(token string) (Bearer, error) {
	err, ok := g[token]
	switch {
	case !ok:
		return nil, fmt.Errorf("token %q: %w", token, auth.ErrUnknownToken)
	case errors.Is(err, errOutdated):
		return nil, auth.ErrExpired
	default:
		return bearer{err}, nil
	}
}

var errOutdated = errors.New("outdated")

func TestAccess(t *testing.T) {
	tokens := grants{"good": nil, "narrow": &auth.Denied{Action: auth.Read()}, "revoked": auth.ErrRevoked, "expired": auth.ErrExpired, "old": errOutdated}
	admitted := 0
	counts := map[string]int{}
	h := Counted(Handler(Config{
		Status:    func() Status { return Status{Info: Info{Hostname: "secret"}} },
		Authorize: tokens.authorize,
		Admitted:  func(*http.Request) { admitted++ },
		Ready:     func(string) error { return nil },
		Gatherer:  prometheus.NewRegistry(),
	}), func(path string, code int) { counts[fmt.Sprint(path, " ", code)]++ })
	for _, tt := range []struct {
		name, authorization string
		code                int
		challenge, text     string
	}{
		{"a token that may read", "Bearer good", 200, "", ""},
		{"in lower case", "bearer good", 200, "", ""},
		{"no token", "", 401, `Bearer realm="culvert"`, "a bearer token is needed"},
		{"an empty token", "Bearer ", 401, `Bearer realm="culvert"`, "a bearer token is needed"},
		{"another scheme", "Basic good", 401, `Bearer realm="culvert"`, "a bearer token is needed"},
		{"an unknown token", "Bearer canary", 401, `Bearer realm="culvert", error="invalid_token"`, "the token is not known"},
		{"an expired token", "Bearer old", 401, `Bearer realm="culvert", error="invalid_token"`, "the token has expired"},
		{"a token that expired meanwhile", "Bearer expired", 401, `Bearer realm="culvert", error="invalid_token"`, "the token has expired"},
		{"a token that was revoked meanwhile", "Bearer revoked", 401, `Bearer realm="culvert", error="invalid_token"`, "the token is not known"},
		{"a token that may not read", "Bearer narrow", 403, "", "does not let it read"},
	} {
		for _, path := range []string{"/status", "/metrics"} {
			for _, method := range []string{"GET", "HEAD"} {
				t.Run(strings.Join([]string{tt.name, method, path}, " "), func(t *testing.T) {
					before := admitted
					req := httptest.NewRequest(method, path, nil)
					if tt.authorization != "" {
						req.Header.Set("Authorization", tt.authorization)
					}
					res := ask(h, req)
					body, _ := io.ReadAll(res.Body)
					if res.StatusCode != tt.code || res.Header.Get("WWW-Authenticate") != tt.challenge || !strings.Contains(string(body), tt.text) {
						t.Errorf("got %d, challenge %q, %q", res.StatusCode, res.Header.Get("WWW-Authenticate"), body)
					}
					if strings.Contains(string(body), "canary") || tt.code != 200 && strings.Contains(string(body), "secret") {
						t.Errorf("the answer tells too much: %q", body)
					}
					if closes := res.Header.Get("Connection") == "close"; closes != (tt.code != 200) {
						t.Errorf("connection closed: %v", closes)
					}
					if got := admitted > before; got != (tt.code == 200) {
						t.Errorf("admitted: %v", got)
					}
				})
			}
		}
	}
	want := map[string]int{"/status 200": 4, "/status 401": 14, "/status 403": 2, "/metrics 200": 4, "/metrics 401": 14, "/metrics 403": 2}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

func TestServerThatAsksForNoToken(t *testing.T) {
	h := Handler(Config{
		Status:    func() Status { return Status{} },
		Authorize: func(string) (Bearer, error) { return auth.Anyone(), nil },
		Ready:     func(string) error { return nil },
		Gatherer:  prometheus.NewRegistry(),
	})
	for _, authorization := range []string{"", "Bearer any", "Basic any"} {
		req := httptest.NewRequest("GET", "/status", nil)
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		if res := ask(h, req); res.StatusCode != http.StatusOK {
			t.Errorf("with %q: got %d, want 200", authorization, res.StatusCode)
		}
	}
}

func ask(h http.Handler, req *http.Request) *http.Response {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec.Result()
}

func TestHealth(t *testing.T) {
	ready := func(service string) error {
		switch service {
		case "", "db":
			return nil
		default:
			return errors.New("no client")
		}
	}
	full := Handler(Config{Ready: ready, Gatherer: prometheus.NewRegistry()})
	for _, tt := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/healthz", 200, "ok\n"},
		{"HEAD", "/healthz", 200, "ok\n"},
		{"GET", "/readyz", 200, "ok\n"},
		{"GET", "/readyz/db", 200, "ok\n"},
		{"GET", "/readyz/other", 503, "not ready: no client\n"},
		{"GET", "/readyz/a/b", 404, "nothing is served under this path\n"},
		{"GET", "/", 404, "nothing is served under this path\n"},
		{"GET", "/debug/pprof/", 404, "nothing is served under this path\n"},
		{"POST", "/healthz", 405, "only GET and HEAD are served here\n"},
		{"DELETE", "/other", 405, "only GET and HEAD are served here\n"},
	} {
		for name, h := range map[string]http.Handler{"alone": HealthHandler(ready), "beside the rest": full} {
			t.Run(strings.Join([]string{tt.method, tt.path, name}, " "), func(t *testing.T) {
				res := ask(h, httptest.NewRequest(tt.method, tt.path, nil))
				body, _ := io.ReadAll(res.Body)
				if res.StatusCode != tt.code || string(body) != tt.body || res.Header.Get("Connection") != "close" {
					t.Errorf("got %d %q, Connection: %s, want %d %q and close", res.StatusCode, body, res.Header.Get("Connection"), tt.code, tt.body)
				}
				if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("headers are %v", res.Header)
				}
			})
		}
	}
	for _, path := range []string{"/status", "/metrics"} {
		if res := ask(HealthHandler(ready), httptest.NewRequest("GET", path, nil)); res.StatusCode != 404 {
			t.Errorf("the health port answers %s with %d, want 404", path, res.StatusCode)
		}
	}
}

func statusOf(t *testing.T, s Status) string {
	t.Helper()
	h := Handler(Config{Status: func() Status { return s }, Authorize: grants{"good": nil}.authorize, Gatherer: prometheus.NewRegistry()})
	req := httptest.NewRequest("GET", "/status", nil)
	req.Header.Set("Authorization", "Bearer good")
	res := ask(h, req)
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type is %q", got)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Others' scripts read this; its first fields are those of seed 001.
func TestStatusJSON(t *testing.T) {
	at := time.Date(2021, 8, 13, 12, 23, 17, 321388000, time.FixedZone("", 3600))
	got := statusOf(t, Status{
		Info: Info{Version: "0.8.9", SHA: "f4fc15b", Mode: "http", StartTime: at, Hostname: "am1.local"},
		Clients: []Client{
			{ClientID: "0c5f", RemoteAddr: "[::1]:63671", Since: at, Upstreams: []string{"*=http://127.0.0.1:8080"}},
			{
				ClientID: "0c60", RemoteAddr: "[::1]:63672", Since: at, Instance: "i", Labels: map[string]string{"zone": "a"},
				Tunnels: []Tunnel{{Name: "tcp/2222", Address: "0.0.0.0:2222"}, {Name: "name/db"}}, RTTMillis: 1.5, Links: 2, Streams: 2, Resumes: 4, Reconnects: 3,
			},
		},
	})
	want := `{"info":{"version":"0.8.9","sha":"f4fc15b","mode":"http","startTime":"2021-08-13T12:23:17.321388+01:00","hostname":"am1.local"},` +
		`"clients":[{"clientID":"0c5f","remoteAddr":"[::1]:63671","since":"2021-08-13T12:23:17.321388+01:00","upstreams":["*=http://127.0.0.1:8080"],` +
		`"rttMillis":0,"links":0,"streams":0,"resumes":0,"reconnects":0},` +
		`{"clientID":"0c60","remoteAddr":"[::1]:63672","since":"2021-08-13T12:23:17.321388+01:00","upstreams":[],` +
		`"instance":"i","labels":{"zone":"a"},"tunnels":[{"name":"tcp/2222","address":"0.0.0.0:2222"},{"name":"name/db"}],` +
		`"rttMillis":1.5,"links":2,"streams":2,"resumes":4,"reconnects":3}]}` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestStatusWithoutClientsIsAList(t *testing.T) {
	var got map[string]json.RawMessage
	if err := json.Unmarshal([]byte(statusOf(t, Status{})), &got); err != nil {
		t.Fatal(err)
	}
	if string(got["clients"]) != "[]" {
		t.Errorf("clients is %s, want []", got["clients"])
	}
}

func TestMetricsAreServed(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "drops_total", Help: "Drops."})
	reg.MustRegister(c)
	c.Inc()
	h := Handler(Config{Authorize: grants{"good": nil}.authorize, Gatherer: reg})
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Authorization", "Bearer good")
	body, err := io.ReadAll(ask(h, req).Body)
	if err != nil || !strings.Contains(string(body), "drops_total 1\n") {
		t.Errorf("got %q, %v", body, err)
	}
}
