package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/client"
	"culvert/internal/config"
	"culvert/internal/tunnel"
)

const connectionsJSON = `{"connections":[{"id":"4fd2a6e1b0c39875","begun":"2026-03-01T11:57:00Z","entrypoint":"devices","protocol":"tcp","source":"203.0.113.7:4123",` +
	`"destination":"192.0.2.1:23","route":"app","upstream":"app","member":"10.0.1.2:23","tries":[{"member":"10.0.1.1:23","reason":"refused","millis":1.5}],` +
	`"queuedMillis":0,"connectMillis":0.42,"open":false,"durationMillis":12300,"bytesIn":123,"bytesOut":456,"closedBy":"visitor","why":"closed"}%s]}`

// apiServer is a control port that answers with one code and body, and puts down what it is asked.
func apiServer(t *testing.T, code int, body string) (addr string, asked *[]string) {
	t.Helper()
	asked = new([]string)
	addr, _ = statusServer(t, func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer "+testToken {
			t.Errorf("authorized by %q", r.Header.Get("Authorization"))
		}
		if r.Method != "GET" && r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s with the content type %q", r.Method, r.Header.Get("Content-Type"))
		}
		*asked = append(*asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(sent)))
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	})
	return addr, asked
}

func TestCommandsThatAskTheAPI(t *testing.T) {
	one, two := fmt.Sprintf(connectionsJSON, ""), fmt.Sprintf(connectionsJSON, `,{"id":"4fd2ffff","begun":"2026-03-01T11:00:00Z","entrypoint":"web","protocol":"tls","open":true}`)
	none := `{"connections":[]}`
	diverts := `{"diverts":[{"id":"3f9a1c2b","client":"anna/1","up":true,"entrypoint":"devices","to":"127.0.0.1:9000","until":"2026-03-01T12:05:00Z"}]}`
	members := `{"upstreams":[{"name":"app","members":[{"name":"web1","state":"up","weight":2,"open":1,"total":3}]},{"name":"web"}]}`
	for _, tt := range []struct {
		line   string
		code   int
		answer string
		asked  string
		exit   int
		stdout string // a part of it
		stderr string
	}{
		{"explain 4fd2", 200, one, "GET /api/connections?id=4fd2&limit=20", 0, "tried       10.0.1.1:23: refused after 1.5ms\n", ""},
		{"explain 4fd2", 200, two, "GET /api/connections?id=4fd2&limit=20", 0, "4fd2ffff          1 hour ago     web  ", ""},
		{"explain --last 3 --source 203.0.113.0/24 --entrypoint devices", 200, one, "GET /api/connections?entrypoint=devices&limit=3&source=203.0.113.0%2F24", 0, "Connection 4fd2a6e1b0c39875, 3 minutes ago", ""},
		{"explain --output json", 200, one, "GET /api/connections?limit=20", 0, `      "id": "4fd2a6e1b0c39875",`, ""},
		{"explain --source 203.0.113.7", 200, none, "GET /api/connections?limit=20&source=203.0.113.7", 0, "", "no connection is kept from 203.0.113.7"},
		{"explain 4fd2", 200, none, "GET /api/connections?id=4fd2&limit=20", 1, "", "no connection is kept whose id begins with 4fd2"},
		{"explain 4fd2", 403, `{"error":"x"}`, "GET /api/connections?id=4fd2&limit=20", 1, "", "not read: make one with --read"},
		{"explain 4fd2", 404, "404 page not found", "GET /api/connections?id=4fd2&limit=20", 1, "", "is not a culvert server"},
		{"explain XYZ", 0, "", "", 2, "", "give the id of one connection"},
		{"explain --source nobody", 0, "", "", 2, "", "--source: "},
		{"explain --last 0", 0, "", "", 2, "", "--last: 0 connections"},
		{"reload", 200, "{}", "POST /api/reload", 0, "", "has read its configuration file again"},
		{"reload", 200, `{"warnings":["control_port waits"]}`, "POST /api/reload", 0, "", "culvert: warning: control_port waits\nThe server has read"},
		{"reload", 422, `{"error":"culvert.yaml:3:5: unknown key \"adr\""}`, "POST /api/reload", 1, "", "culvert: culvert.yaml:3:5: unknown key \"adr\"\n" + "culvert: the server goes on with the configuration that it has\n"},
		{"reload", 403, `{"error":"x"}`, "POST /api/reload", 1, "", "not administer: make one with --admin"},
		{"drain", 200, "{}", "POST /api/drain", 0, "", "The server drains"},
		{"divert list", 200, diverts, "GET /api/dataplane", 0, "3f9a1c2b devices    all     127.0.0.1:9000 anna, the shared token 5m0s      0    0\n", ""},
		{"divert list --output json", 200, diverts, "GET /api/dataplane", 0, `"client": "anna/1"`, ""},
		{"divert list", 200, `{"diverts":[]}`, "GET /api/dataplane", 0, "", "Nothing is diverted."},
		{"divert end 3f9a1c2b", 200, "{}", "DELETE /api/diverts/3f9a1c2b", 0, "", "Ended the divert 3f9a1c2b."},
		{"divert end a/b", 404, `{"error":"no divert has the id \"a/b\""}`, "DELETE /api/diverts/a%2Fb", 1, "", `culvert: no divert has the id "a/b"`},
		{"divert end", 0, "", "", 2, "", "give the id of one divert"},
		{"member drain app/web1", 200, "{}", `PATCH /api/upstreams/app/members/web1 {"drain":true}`, 0, "", "app/web1 gets no new connections.\nThose that are open go on"},
		{"member ready app/unix:/run/x", 200, "{}", `PATCH /api/upstreams/app/members/unix:%2Frun%2Fx {"drain":false}`, 0, "", "app/unix:/run/x gets new connections again"},
		{"member weight app/web1 50", 200, "{}", `PATCH /api/upstreams/app/members/web1 {"weight":50}`, 0, "", "app/web1 has the weight 50."},
		{"member weight tcp/2222/edge/i1 0", 200, "{}", `PATCH /api/upstreams/tcp%2F2222/members/edge%2Fi1 {"weight":0}`, 0, "", "tcp/2222/edge/i1 has the weight 0.\nIt gets no new connections, and member list shows it as draining, until"},
		{"member weight http/a.example.com/api edge/i1 3", 200, "{}", `PATCH /api/upstreams/http%2Fa.example.com%2Fapi/members/edge%2Fi1 {"weight":3}`, 0, "", "has the weight 3."},
		{"member drain tcp/web1", 200, "{}", `PATCH /api/upstreams/tcp/members/web1 {"drain":true}`, 0, "", "tcp/web1 gets no new"},
		{"member drain app/web9", 404, `{"error":"upstream app has no member \"web9\": it has web1, web2"}`, `PATCH /api/upstreams/app/members/web9 {"drain":true}`, 1, "", `culvert: upstream app has no member "web9": it has web1, web2`},
		{"member drain app/web1", 403, `{"error":"x"}`, `PATCH /api/upstreams/app/members/web1 {"drain":true}`, 1, "", "not administer: make one with --admin"},
		{"member drain app/web1 --wait 1m", 403, `{"error":"x"}`, "GET /api/dataplane", 1, "", "not read: make one with --read"}, // and nothing has changed
		{"member drain app/web1 --close", 200, "{}", `PATCH /api/upstreams/app/members/web1 {"drain":true,"close":true}`, 0, "", "Its open connections are ended.\n"},
		{"member drain app/web1 --wait 1ms", 200, members, `GET /api/dataplane, PATCH /api/upstreams/app/members/web1 {"drain":true}, GET /api/dataplane`, 1, "", "app/web1 has 1 connection open after 1ms: --close would end them"},
		{"member drain web/none --wait 1m", 200, members, `GET /api/dataplane, PATCH /api/upstreams/web/members/none {"drain":true}, GET /api/dataplane`, 0, "", "It has no open connections.\n"},
		{
			"member drain app/web1 --wait 1ms --close", 200, members,
			`GET /api/dataplane, PATCH /api/upstreams/app/members/web1 {"drain":true}, GET /api/dataplane, PATCH /api/upstreams/app/members/web1 {"drain":true,"close":true}`, 0, "", "Its open connections are ended.\n",
		},
		{"member drain", 0, "", "", 2, "", "give one member as UPSTREAM/MEMBER, as culvert member list shows them"},
		{"member drain app", 0, "", "", 2, "", "give one member as UPSTREAM/MEMBER"},
		{"member drain app/", 0, "", "", 2, "", "give one member as UPSTREAM/MEMBER"},
		{"member weight app/web1", 0, "", "", 2, "", "give one member as UPSTREAM/MEMBER"},
		{"member weight app/web1 50%", 0, "", "", 2, "", `"50%" is not a weight: give a number from 0`},
		{"member weight app/web1 65537", 0, "", "", 2, "", `"65537" is not a weight`},
		{"member list", 200, members, "GET /api/dataplane", 0, "app      web1   up    2      1    3     0      -\n", ""},
		{"member list web", 200, members, "GET /api/dataplane", 0, "web      -      -", ""},
		{"member list app --output json", 200, members, "GET /api/dataplane", 0, `"name": "web1"`, ""},
		{"member list other", 200, members, "GET /api/dataplane", 1, "", `culvert: the server has no upstream "other"; it has app, web`},
		{"member list", 200, `{"upstreams":[]}`, "GET /api/dataplane", 0, "", "The server has no upstreams."},
		{"member list --output json", 200, `{"upstreams":[]}`, "GET /api/dataplane", 0, "[]\n", ""},
		{"member list a b", 0, "", "", 2, "", "give one upstream"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			addr, asked := apiServer(t, tt.code, tt.answer)
			w := newWorld(t)
			code := w.run(t, tt.line+" --url wss://"+addr+" --token-file DIR/token")
			if code != tt.exit || !strings.Contains(w.stdout.String(), tt.stdout) || !strings.Contains(w.stderr.String(), tt.stderr) {
				t.Errorf("code %d, want %d, %q and %q\n%s%s", code, tt.exit, tt.stdout, tt.stderr, &w.stdout, &w.stderr)
			}
			if got := strings.Join(*asked, ", "); got != tt.asked {
				t.Errorf("asked %q, want %q", got, tt.asked)
			}
			if tt.exit != 0 && w.stdout.Len() > 0 {
				t.Errorf("standard output of a failure: %s", &w.stdout)
			}
		})
	}
}

const typedDivert = "divert --url wss://h:8123 --token-file DIR/token --entrypoint devices --source 203.0.113.7 --to 127.0.0.1:9000"

func TestDivertSaysWhatHappens(t *testing.T) {
	until := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	open := tunnel.Open{ID: "c1", Source: netip.MustParseAddrPort("203.0.113.7:4123")}
	events := []client.DivertEvent{
		{Begun: &client.DivertBegun{ID: "3f9a1c2b", Until: until}}, {Opened: &open}, {Lost: errors.New("reset")}, {Back: true}, {Opened: &open},
	}
	const begun = "New traffic of entrypoint devices from 203.0.113.7 goes to 127.0.0.1:9000 until 12:30:00 (30m0s). Ctrl-C ends it. Its id is 3f9a1c2b.\n" +
		"The server is out of reach, and visitors go the other ways: reset\nThe server is back, and so is the divert.\n"
	for _, tt := range []struct {
		name, flags string
		events      []client.DivertEvent
		fail        error
		code        int
		stdout      string
		stderr      string
	}{
		{"interrupted", "", events, nil, 0, begun + "The divert has ended: interrupted. 2 connections came here.\n", ""},
		{"its time is over", "", events[:2], client.ErrTimeOver, 0, strings.SplitAfter(begun, "\n")[0] + "The divert has ended: its time is over. 1 connection came here.\n", ""},
		{"ended", "", events, errors.New("the server has ended the divert: enough"), 1, begun + "The divert has ended: enough. 2 connections came here.\n", "culvert: the server has ended the divert: enough\n"},
		{
			"the target does not serve", "", []client.DivertEvent{
				events[0],
				{Opened: &open},
				{Unserved: "refuses connections"},
				{Opened: &open},
				{Unserved: "refuses connections"},
				{Opened: &open},
				{Unserved: "does not answer"},
				{Opened: &open},
			}, nil, 0, strings.SplitAfter(begun, "\n")[0] + "127.0.0.1:9000 refuses connections: visitors go on to the entrypoint's own routes.\n" +
				"127.0.0.1:9000 does not answer: visitors go on to the entrypoint's own routes.\n" +
				"The divert has ended: interrupted. 1 connection came here.\n", "",
		},
		{
			"the target does not serve, and visitors are to fail", " --on-down fail",
			[]client.DivertEvent{events[0], {Opened: &open}, {Unserved: "refuses connections"}},
			nil, 0,
			strings.SplitAfter(begun, "\n")[0] + "127.0.0.1:9000 refuses connections: visitors are sent away.\nThe divert has ended: interrupted. 0 connections came here.\n", "",
		},
		{"refused", "", nil, errors.New("the server refuses the divert: no"), 1, "", "culvert: the server refuses the divert: no\n"},
		{"for programs", " --output json", events[:2], nil, 0, `{"event":"begun","id":"3f9a1c2b","until":"2026-03-01T12:30:00Z"}` + "\n" +
			`{"event":"connection","connection":"c1","source":"203.0.113.7:4123","connections":1}` + "\n" + `{"event":"ended","connections":1,"reason":"interrupted"}` + "\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.events, w.fail = tt.events, tt.fail
			if code := w.run(t, typedDivert+tt.flags); code != tt.code || w.stdout.String() != tt.stdout || w.stderr.String() != tt.stderr {
				t.Errorf("code %d\n%s%s\nwant %d\n%s%s", code, &w.stdout, &w.stderr, tt.code, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestDivertSaysWhatItWaitsFor(t *testing.T) {
	for _, ends := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var cfg config.Divert
			config.Describe(&cfg, "")
			cfg.DrainTimeout = 30 * time.Second
			var out strings.Builder
			p := &divertPrinter{cfg: &cfg, out: &out, json: json.NewEncoder(&out)}
			p.event(client.DivertEvent{Begun: &client.DivertBegun{ID: "3f9a1c2b"}})
			p.waits()
			if ends {
				p.ended(nil)
			}
			time.Sleep(time.Minute)
			p.mu.Lock()
			defer p.mu.Unlock()
			if got := strings.Contains(out.String(), "may finish for 30s; Ctrl-C again"); got == ends {
				t.Errorf("ended at once: %t; got %q", ends, &out)
			}
		})
	}
}

func TestDivertsFlags(t *testing.T) {
	w := newWorld(t)
	if code := w.run(t, typedDivert+" --source 2001:db8::/32 --sni *.example.com --percent 12.5 --for 1h --on-down fail --existing move --id anna"); code != 0 {
		t.Fatalf("code %d\n%s", code, &w.stderr)
	}
	d := w.divert
	if got := fmt.Sprintf("%+v", d.Wish); got != "{Entrypoint:devices Sources:[203.0.113.7 2001:db8::/32] Hosts:[*.example.com] Percent:12.5 For:1h0m0s Fail:true Existing:move}" {
		t.Errorf("wish %s", got)
	}
	if d.Client.ID != "anna" || d.Client.URLs[0].String() != "wss://h:8123/connect" || d.Client.Token.Reveal() != testToken || d.Client.StateDir != "" {
		t.Errorf("client %+v", d.Client)
	}
	if !strings.Contains(w.stdout.String(), "interrupted") && w.stdout.Len() > 0 {
		t.Errorf("said %s", &w.stdout)
	}
	for _, tt := range []struct{ flags, want string }{
		{"--to 127.0.0.1:9000 --entrypoint a", "--source: it is not said which traffic is to be diverted; give --source or --sni, or --percent 100 for all of it"},
		{"--percent 0 --to 127.0.0.1:9000 --entrypoint a", "--percent: 0 percent of the connections"},
		{"--percent x --to 127.0.0.1:9000 --entrypoint a", `--percent: "x" is not a number`},
		{"--percent 5 --to 127.0.0.1 --entrypoint a", `--to: "127.0.0.1" has no port`},
		{"--percent 5 --to http://127.0.0.1:1 --entrypoint a", "--to: "},
		{"--percent 5 --to file:/srv --entrypoint a", "--to: "},
		{"--percent 5 --entrypoint a", "--to: it is not said where"},
		{"--percent 5 --to 127.0.0.1:1", "--entrypoint: it is not said whose traffic"},
		{"--percent 5 --to 127.0.0.1:1 --entrypoint a --for 25h", "--for: a divert cannot last 25h0m0s; give 1s to 24h"},
		{"--sni a..b --to 127.0.0.1:1 --entrypoint a", "--sni: "},
		{"--source a --to 127.0.0.1:1 --entrypoint a", "--source: "},
		{"--percent 5 --to 127.0.0.1:1 --entrypoint a --on-down wait", `--on-down: "wait" is unknown; use fallback or fail`},
		{"lst", `unknown command "lst" for culvert divert; did you mean list?`},
	} {
		if code := w.run(t, "divert --url wss://h:8123 --token-file DIR/token "+tt.flags); code != 2 || !strings.Contains(w.stderr.String(), tt.want) || w.divert != nil {
			t.Errorf("divert %s: code %d, want it to say %q\n%s", tt.flags, code, tt.want, &w.stderr)
		}
	}
	for to, want := range map[string]string{"unix:/run/app.sock": "unix:/run/app.sock", "/run/app.sock": "unix:/run/app.sock", "localhost:80": "localhost:80", "[::1]:80": "[::1]:80"} {
		if code := w.run(t, "divert --url wss://h:8123 --token-file DIR/token --percent 100 --entrypoint a --to "+to); code != 0 || w.divert.Target.Spec != want {
			t.Errorf("--to %s: code %d, %+v\n%s", to, code, w.divert, &w.stderr)
		}
	}
}
