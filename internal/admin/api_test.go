package admin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/accesslog"
	"culvert/internal/auth"
)

// operated is a server as the API sees it: it puts down what it is asked for.
type operated struct {
	asked    []string
	fail     error
	warnings []string // of a reload
}

func (o *operated) did(format string, args ...any) error {
	o.asked = append(o.asked, fmt.Sprintf(format, args...))
	return o.fail
}

func (o *operated) State() State {
	return State{Upstreams: []Upstream{{Name: "app", Members: []Member{{Name: "a/b:80", State: MemberEjected, Weight: 2}}}, {Name: "tcp/2222"}}}
}

func (o *operated) ChangeMember(upstream, member string, c MemberChange) error {
	text := fmt.Sprintf("change %s %s", upstream, member)
	if c.Drain != nil {
		text += fmt.Sprintf(" drain=%v", *c.Drain)
	}
	if c.Weight != nil {
		text += fmt.Sprintf(" weight=%d", *c.Weight)
	}
	if c.Close {
		text += " close=true"
	}
	return o.did("%s", text)
}

func (o *operated) Diverts() []Divert            { return []Divert{{ID: "d1", Entrypoint: "devices"}} }
func (o *operated) EndDivert(id, _ string) error { return o.did("end %s", id) }
func (o *operated) Reload() ([]string, error)    { return o.warnings, o.did("reload") }
func (o *operated) Drain()                       { _ = o.did("drain") }

// grantee is the bearer of a token with a grant.
type grantee struct{ auth.Grant }

func (grantee) String() string { return "0c5f2a1c" }

func api(o *operated, log io.Writer, find func(accesslog.Query) []accesslog.Record) http.Handler {
	grants := map[string]auth.Grant{"reader": {Read: true}, "admin": {Administer: true}, "both": {Read: true, Administer: true}, "other": {Names: []string{"*"}, Divert: []string{"*"}}}
	return Handler(Config{
		Authorize: func(token string) (Bearer, error) {
			g, ok := grants[token]
			if !ok {
				return nil, auth.ErrUnknownToken
			}
			return grantee{g}, nil
		},
		Ready: func(string) error { return nil }, Gatherer: prometheus.NewRegistry(),
		Operator: o, Diverts: o, DataPlane: o, Connections: find, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
}

func apiRequest(method, path, token, body string, header ...string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if method != "GET" && method != "HEAD" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func TestWhoMayAskAndChange(t *testing.T) {
	for _, tt := range []struct{ method, path, body, may string }{
		{"GET", "/api/dataplane", "", "reader"},
		{"GET", "/api/connections", "", "reader"},
		{"POST", "/api/reload", "", "admin"},
		{"POST", "/api/drain", "", "admin"},
		{"PATCH", "/api/upstreams/app/members/m", `{"drain":true}`, "admin"},
		{"DELETE", "/api/diverts/d1", "", "admin"},
	} {
		for _, token := range []string{"", "unknown", "other", "reader", "admin", "both"} {
			t.Run(strings.Join([]string{tt.method, tt.path, "by", token}, " "), func(t *testing.T) {
				o := &operated{}
				h := api(o, io.Discard, func(accesslog.Query) []accesslog.Record { return nil })
				res := ask(h, apiRequest(tt.method, tt.path, token, tt.body))
				body, _ := io.ReadAll(res.Body)
				want := 403
				switch token {
				case "", "unknown":
					want = 401
				case tt.may, "both":
					want = 200
				}
				if res.StatusCode != want || res.Header.Get("Content-Type") != "application/json" {
					t.Errorf("got %d %s %q, want %d", res.StatusCode, res.Header.Get("Content-Type"), body, want)
				}
				if want != 200 && (len(o.asked) > 0 || !strings.HasPrefix(string(body), `{"error":"`) || res.Header.Get("Connection") != "close") {
					t.Errorf("%v was done; the answer is %q, %v", o.asked, body, res.Header)
				}
				if (want == 401) != (res.Header.Get("WWW-Authenticate") != "") {
					t.Errorf("challenge %q", res.Header.Get("WWW-Authenticate"))
				}
			})
		}
	}
}

func TestChanges(t *testing.T) {
	long := `{"drain":` + strings.Repeat(" ", maxBody) + `true}`
	for _, tt := range []struct {
		name, method, path, body string
		header                   []string
		fail                     error
		code                     int
		text                     string // of the answer
		asked                    string
	}{
		{"reload", "POST", "/api/reload", "", nil, nil, 200, `{}`, "reload"},
		{"reload of a wrong file", "POST", "/api/reload", "", nil, errors.New("culvert.yaml:3:5: unknown key"), 422, "culvert.yaml:3:5: unknown key", "reload"},
		{"drain", "POST", "/api/drain", "", nil, nil, 200, `{}`, "drain"},
		{"a member drains", "PATCH", "/api/upstreams/app/members/10.0.0.1:80", `{"drain": true}`, nil, nil, 200, `{}`, "change app 10.0.0.1:80 drain=true"},
		{"a member is taken back, with a weight", "PATCH", "/api/upstreams/app/members/m", `{"drain":false,"weight":7}`, nil, nil, 200, `{}`, "change app m drain=false weight=7"},
		{"names with slashes", "PATCH", "/api/upstreams/tcp%2F2222/members/shop%2Fi1", `{"weight":1}`, nil, nil, 200, `{}`, "change tcp/2222 shop/i1 weight=1"},
		{"nobody of that name", "PATCH", "/api/upstreams/x/members/m", `{"weight":1}`, nil, fmt.Errorf("%w: no upstream %q", ErrNotFound, "x"), 404, `"error":"no upstream \"x\""`, "change x m weight=1"},
		{"an IPv6 member", "PATCH", "/api/upstreams/app/members/%5B::1%5D:80", `{"weight":1}`, nil, nil, 200, `{}`, "change app [::1]:80 weight=1"},
		{"a divert", "DELETE", "/api/diverts/d1", "", nil, nil, 200, `{}`, "end d1"},
		{"with a charset", "POST", "/api/reload", "", []string{"Content-Type", "application/json; charset=utf-8"}, nil, 200, `{}`, "reload"},

		{"an end of connections", "PATCH", "/api/upstreams/app/members/m", `{"drain":true,"close":true}`, nil, nil, 200, `{}`, "change app m drain=true close=true"},
		{"an end of connections that would come back", "PATCH", "/api/upstreams/app/members/m", `{"close":true}`, nil, nil, 400, `\"close\" goes with \"drain\": true`, ""},
		{"another one", "PATCH", "/api/upstreams/app/members/m", `{"close":true,"drain":false}`, nil, nil, 400, `\"close\" goes with \"drain\": true`, ""},
		{"no change", "PATCH", "/api/upstreams/app/members/m", `{}`, nil, nil, 400, "nothing is to be changed", ""},
		{"a weight of nothing", "PATCH", "/api/upstreams/app/members/m", `{"weight":0}`, nil, nil, 200, `{}`, "change app m weight=0"},
		{"the greatest weight of the file", "PATCH", "/api/upstreams/app/members/m", `{"weight":65536}`, nil, nil, 200, `{}`, "change app m weight=65536"},
		{"a greater weight", "PATCH", "/api/upstreams/app/members/m", `{"weight":65537}`, nil, nil, 400, "from 0, for nothing new, to 65536", ""},
		{"a negative weight", "PATCH", "/api/upstreams/app/members/m", `{"weight":-1}`, nil, nil, 400, "from 0, for nothing new, to 65536", ""},
		{"an unknown key", "PATCH", "/api/upstreams/app/members/m", `{"wait":1}`, nil, nil, 400, `unknown field \"wait\"`, ""},
		{"a value of another kind", "PATCH", "/api/upstreams/app/members/m", `{"weight":"3"}`, nil, nil, 400, `body: \"weight\" is a string here: want a whole number`, ""},
		{"a fraction", "PATCH", "/api/upstreams/app/members/m", `{"weight":1.5}`, nil, nil, 400, `body: \"weight\" is a number 1.5 here: want a whole number`, ""},
		{"a number for a switch", "PATCH", "/api/upstreams/app/members/m", `{"drain":1}`, nil, nil, 400, `body: \"drain\" is a number here: want true or false`, ""},
		{"a list", "PATCH", "/api/upstreams/app/members/m", `[]`, nil, nil, 400, `want an object`, ""},
		{"two values", "PATCH", "/api/upstreams/app/members/m", `{"weight":1}{}`, nil, nil, 400, "something follows", ""},
		{"no JSON", "PATCH", "/api/upstreams/app/members/m", `weight=1`, nil, nil, 400, "body: invalid character", ""},
		{"no body", "PATCH", "/api/upstreams/app/members/m", ``, nil, nil, 400, "body: EOF", ""},
		{"a long body", "PATCH", "/api/upstreams/app/members/m", long, nil, nil, 413, "longer than", ""},
		{"a form of a web page", "POST", "/api/drain", "", []string{"Content-Type", "application/x-www-form-urlencoded"}, nil, 415, "application/json", ""},
		{"a script of another site", "POST", "/api/drain", "", []string{"Sec-Fetch-Site", "cross-site"}, nil, 403, "other sites", ""},
		{"a script of another site in an old browser", "POST", "/api/drain", "", []string{"Origin", "https://evil.example"}, nil, 403, "other sites", ""},
		{"a browser that asks before", "OPTIONS", "/api/drain", "", []string{"Origin", "https://evil.example"}, nil, 404, "no such path", ""},
		{"another method", "GET", "/api/drain", "", nil, nil, 404, "no such path", ""},
		{"another path", "POST", "/api/else", "", nil, nil, 404, "no such path", ""},
		{"a body where there is none", "GET", "/api/dataplane", "x", nil, nil, 413, "has a body", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &operated{fail: tt.fail}
			var log bytes.Buffer
			res := ask(api(o, &log, nil), apiRequest(tt.method, tt.path, "both", tt.body, tt.header...))
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != tt.code || !strings.Contains(string(body), tt.text) {
				t.Errorf("got %d %s, want %d %s", res.StatusCode, body, tt.code, tt.text)
			}
			if got := strings.Join(o.asked, ", "); got != tt.asked {
				t.Errorf("done: %q, want %q", got, tt.asked)
			}
			if what := strings.SplitN(tt.asked, " ", 4); what[0] == "change" && !strings.Contains(log.String(), what[3]) {
				t.Errorf("the log does not say what was changed: %s", &log)
			}
			if tt.asked != "" && (strings.Count(log.String(), "by=0c5f2a1c from=192.0.2.1:1234 ") != 1 || strings.Contains(log.String(), "refused") != (tt.fail != nil)) {
				t.Errorf("audit: %q", log.String())
			}
		})
	}
}

func TestAReloadTellsItsWarnings(t *testing.T) {
	res := ask(api(&operated{warnings: []string{"control_port waits"}}, io.Discard, nil), apiRequest("POST", "/api/reload", "admin", ""))
	if body, _ := io.ReadAll(res.Body); string(body) != `{"warnings":["control_port waits"]}`+"\n" {
		t.Errorf("got %s", body)
	}
}

// A body that does not come is not waited for, and one that comes slowly no longer than bodyTimeout.
func TestBodiesThatDoNotCome(t *testing.T) {
	s := httptest.NewServer(api(&operated{}, io.Discard, nil))
	t.Cleanup(s.Close)
	for _, tt := range []struct {
		name, head string
		code       string
		within     time.Duration
	}{
		{"of a stranger", "PATCH /api/upstreams/a/members/b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", " 401 ", bodyTimeout - time.Second},
		{"of a stranger, in pieces", "POST /api/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", " 401 ", bodyTimeout - time.Second},
		{"of a question", "GET /api/dataplane HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer both\r\nContent-Length: 100\r\n\r\n", " 413 ", bodyTimeout - time.Second},
		{"too long by its own word", "PATCH /api/upstreams/a/members/b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer both\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{", " 413 ", bodyTimeout - time.Second},
		{"of an operator", "PATCH /api/upstreams/a/members/b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer both\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", " 400 ", 3 * bodyTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			begun := time.Now()
			_, _ = io.WriteString(c, tt.head)
			lines := bufio.NewReader(c)
			first, err := lines.ReadString('\n')
			if err != nil || !strings.Contains(first, tt.code) {
				t.Errorf("got %q, %v, want%s", first, err, tt.code)
			}
			_, _ = io.Copy(io.Discard, lines) // to the end of the connection
			if took := time.Since(begun); took > tt.within {
				t.Errorf("it took %s, want %s", took, tt.within)
			}
		})
	}
}

func TestStateIsWhole(t *testing.T) {
	h := api(&operated{}, io.Discard, nil)
	body, _ := io.ReadAll(ask(h, apiRequest("GET", "/api/dataplane", "reader", "")).Body)
	want := `{"entrypoints":[],"upstreams":[{"name":"app","balance":"","usable":false,"queued":0,"members":[{"name":"a/b:80","state":"ejected","weight":2,"open":0,"total":0,"failed":0}]},` +
		`{"name":"tcp/2222","balance":"","usable":false,"queued":0,"members":[]}],"diverts":[{"id":"d1","by":"","client":"","up":false,"entrypoint":"devices","to":"","onDown":"",` +
		`"existing":"","begun":"0001-01-01T00:00:00Z","until":"0001-01-01T00:00:00Z","open":0,"total":0}]}` + "\n"
	if diff := cmp.Diff(want, string(body)); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

func TestQuestionsAboutConnections(t *testing.T) {
	for _, tt := range []struct {
		query string
		want  accesslog.Query
		fault string
	}{
		{"", accesslog.Query{Limit: 100}, ""},
		{"?id=4fd2&entrypoint=devices&limit=7", accesslog.Query{ID: "4fd2", Entrypoint: "devices", Limit: 7}, ""},
		{"?source=203.0.113.7", accesslog.Query{Limit: 100, Source: netip.MustParsePrefix("203.0.113.7/32")}, ""},
		{"?source=203.0.113.7:4000", accesslog.Query{Limit: 100, Source: netip.MustParsePrefix("203.0.113.7/32")}, ""},
		{"?source=2001:db8::1/64", accesslog.Query{Limit: 100, Source: netip.MustParsePrefix("2001:db8::/64")}, ""},
		{"?source=::ffff:1.2.3.4", accesslog.Query{Limit: 100, Source: netip.MustParsePrefix("1.2.3.4/32")}, ""},
		{"?source=device", accesslog.Query{}, `source: \"device\" is neither an address nor a CIDR`},
		{"?limit=0", accesslog.Query{}, "from 1 to 10000"},
		{"?limit=x", accesslog.Query{}, "from 1 to 10000"},
		{"?sauce=1", accesslog.Query{}, `\"sauce\" is unknown`},
	} {
		t.Run(tt.query, func(t *testing.T) {
			var got accesslog.Query
			h := api(&operated{}, io.Discard, func(q accesslog.Query) []accesslog.Record {
				got = q
				return []accesslog.Record{{ID: "4fd2"}}
			})
			res := ask(h, apiRequest("GET", "/api/connections"+tt.query, "reader", ""))
			body, _ := io.ReadAll(res.Body)
			if tt.fault != "" {
				if res.StatusCode != 400 || !strings.Contains(string(body), tt.fault) {
					t.Errorf("got %d %s, want %s", res.StatusCode, body, tt.fault)
				}
				return
			}
			if res.StatusCode != 200 || !strings.HasPrefix(string(body), `{"connections":[{"id":"4fd2",`) || got != tt.want {
				t.Errorf("got %d %s for %+v, want %+v", res.StatusCode, body, got, tt.want)
			}
		})
	}
}

func TestWithoutAnOperatorThereIsNoAPI(t *testing.T) {
	h := Handler(Config{Ready: func(string) error { return nil }, Gatherer: prometheus.NewRegistry()})
	for _, method := range []string{"GET", "POST"} {
		if res := ask(h, apiRequest(method, "/api/drain", "both", "")); !slices.Contains([]int{404, 405}, res.StatusCode) {
			t.Errorf("%s: got %d", method, res.StatusCode)
		}
	}
}

func TestExplainInWords(t *testing.T) {
	now := time.Date(2026, 11, 20, 15, 7, 5, 0, time.UTC)
	r := accesslog.Record{
		ID: "4fd2a6e1b0c39875", Begun: now.Add(-3 * time.Minute), Entrypoint: "devices", Protocol: "tls", Route: "app", Upstream: "app", Member: "10.0.1.2:23",
		Source: netip.MustParseAddrPort("203.0.113.7:4123"), Destination: netip.MustParseAddrPort("192.0.2.1:23"), Via: netip.MustParseAddrPort("10.0.0.5:1"),
		Host: "api.example.com\x1b[2J", Hops: []string{"edge-1"}, Candidates: []accesslog.Candidate{{Member: "10.0.1.1:23", State: "ejected"}},
		Tries: []accesslog.Try{{Member: "10.0.1.1:23", Reason: "refused", Took: 1500 * time.Microsecond}}, Queued: 20 * time.Millisecond, Connect: 420 * time.Microsecond,
		Duration: 12300 * time.Millisecond, In: 123, Out: 456, ClosedBy: accesslog.Visitor, Why: "closed",
	}
	open := accesslog.Record{ID: "1", Begun: now.Add(-time.Hour), Entrypoint: "2222", Protocol: "tcp", Upstream: "tcp/2222", Member: "shop/730aa1bb96474cbc9f7e76c135e81da8", Source: r.Source}
	nobody := accesslog.Record{ID: "2", Begun: now.Add(-time.Second), Entrypoint: "web", Protocol: "tls", Duration: time.Second, ClosedBy: accesslog.Server, Why: "no connection: no_route"}
	fell := accesslog.Record{
		ID: "3", Begun: now, Entrypoint: "devices", Protocol: "tcp", Route: "app", Upstream: "app", Queued: 2 * time.Second,
		Tries: []accesslog.Try{
			{Member: "anna/i1", Reason: "refused", Took: time.Millisecond, Route: "divert/3f9a"},
			{Member: "divert/77aa", Reason: "ejected", Route: "divert/77aa"},
			{Member: "app", Reason: "queue_timeout", Took: 2 * time.Second},
		},
		ClosedBy: accesslog.Server, Why: "no connection: queue_timeout",
	}
	var b bytes.Buffer
	for _, r := range []accesslog.Record{r, open, nobody, fell} {
		if err := Explain(&b, r, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := PrintConnections(&b, []accesslog.Record{r, open, nobody}, now); err != nil {
		t.Fatal(err)
	}
	want := `Connection 4fd2a6e1b0c39875, 3 minutes ago

  begun       2026-11-20 15:04:05.000 UTC
  visitor     203.0.113.7:4123
  through     10.0.0.5:1, which said who the visitor is
  entrypoint  devices (tls) on 192.0.2.1:23
  asked for   api.example.com?[2J
  route       app, the first that matched, to upstream app
  candidate   10.0.1.1:23: ejected
  tried       10.0.1.1:23: refused after 1.5ms
  waited      20ms for a member with room
  given to    10.0.1.2:23, which answered after 420µs
  by way of   edge-1
  ended       by the visitor after 12s: closed
  bytes       123 from the visitor, 456 to it
Connection 1, 1 hour ago

  begun       2026-11-20 14:07:05.000 UTC
  visitor     203.0.113.7:4123
  entrypoint  2222 (tcp)
  route       (unnamed), the first that matched, to upstream tcp/2222
  given to    shop/730aa1bb96474cbc9f7e76c135e81da8, which answered after 0s
  state       open for 1h0m0s
Connection 2, 1 second ago

  begun       2026-11-20 15:07:04.000 UTC
  visitor     unknown
  entrypoint  web (tls)
  route       none: nothing matched
  given to    nobody
  ended       by the server after 1s: no connection: no_route
  bytes       0 from the visitor, 0 to it
Connection 3, 0 seconds ago

  begun       2026-11-20 15:07:05.000 UTC
  visitor     unknown
  entrypoint  devices (tcp)
  route       app, the first that matched and did not fall back, to upstream app
  tried       anna/i1: refused after 1ms, by route divert/3f9a
  tried       divert/77aa: ejected
  tried       app: queue_timeout after 2s
  waited      2s for a member with room
  given to    nobody
  ended       by the server after 0s: no connection: queue_timeout
  bytes       0 from the visitor, 0 to it
Connection        Begun          Entrypoint  Visitor           Route  Member         Tries  In   Out  State
4fd2a6e1b0c39875  3 minutes ago  devices     203.0.113.7:4123  app    10.0.1.2:23    1      123  456  ended by the visitor after 12s: closed
1                 1 hour ago     2222        203.0.113.7:4123  -      shop/730aa1bb  0      0    0    open
2                 1 second ago   web         -                 -      -              0      0    0    ended by the server after 1s: no connection: no_route
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("words (-want +got):\n%s", diff)
	}
}
