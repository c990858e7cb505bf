package admin

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPlaneInTheStatus(t *testing.T) {
	now := time.Date(2026, 11, 20, 15, 7, 5, 0, time.UTC)
	var b bytes.Buffer
	err := Print(&b, Status{
		Info:        Info{StartTime: now},
		Entrypoints: []Entrypoint{{Name: "devices", Protocol: "tcp", Address: ":23", Listening: true, Open: 2, Total: 9, Routes: []Route{{Name: "divert/d1"}, {Name: "app"}}}, {Name: "web", Protocol: "tls", Address: ":443", Reason: "listen :443: taken"}, {Name: "old", Protocol: "udp", Address: ":1"}},
		Upstreams: []Upstream{{Name: "app", Members: []Member{
			{Name: "10.0.1.1:23", State: MemberEjected, EjectedUntil: now.Add(8 * time.Second), LastError: "refused\x1b", LastErrorAt: now.Add(-2 * time.Second), Weight: 1, Failed: 3, Total: 3},
			{Name: "10.0.1.2:23", State: MemberDown, Since: now.Add(-2 * time.Minute), Check: CheckDown, LastError: "timeout", Weight: 2, Open: 1, MaxConns: 10},
			{Name: "730aa1bb96474cbc9f7e76c135e81da8/22fbfe123c884e8284ee0da3680c1311", State: MemberDraining, Check: CheckDown, Weight: 1, Backup: true},
		}, Queued: 1}, {Name: "empty"}, {Name: "full", Queued: 2}},
		Diverts: []Divert{
			{ID: "d1", Entrypoint: "devices", Client: "anna/1", Up: true, Sources: []string{"203.0.113.7/32"}, Percent: 12.5, To: "127.0.0.1:9000", Until: now.Add(90 * time.Second), Open: 1, Total: 4},
			{ID: "d2", Entrypoint: "web", Client: "ben/2", By: "0c5f2a1c", Hosts: []string{"api.example.com"}, To: "unix:/run/x", Until: now.Add(-time.Second)},
			{ID: "d3", Entrypoint: "web", Client: "eve/2", By: "0c5f2a1d", ByName: "eve", Up: true, To: "x:1", Until: now.Add(time.Hour)},
		},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "Upstreams\n")
	want := `
Entrypoint Protocol Address State                       Open Total Routes
devices    tcp      :23     open                        2    9     divert/d1, app
web        tls      :443    closed: listen :443: taken  0    0     -
old        udp      :1      closed: no member is usable 0    0     -

Upstream Member            State                       Weight     Open    Total Failed Last Error
app      10.0.1.1:23       ejected, tried again in 8s  1          0       3     3      2 seconds ago: refused?
app      10.0.1.2:23       down for 2 minutes          2          1 of 10 0     0      timeout
app      730aa1bb/22fbfe12 draining, down by its check 1 (backup) 0       0     0      -
empty    -                 -                           -          -       -     -      -
full     -                 -                           -          -       -     -      -

1 visitor waits for a member of app with room.
2 visitors wait for a member of full with room.

Divert Entrypoint Traffic                    To             By                     Time Left        Open Total
d1     devices    12.5 % from 203.0.113.7/32 127.0.0.1:9000 anna, the shared token 1m30s            1    4
d2     web        for api.example.com        unix:/run/x    ben, 0c5f2a1c          0s (client away) 0    0
d3     web        all                        x:1            eve, eve (0c5f2a1d)    1h0m0s           0    0
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

// A balancer has no clients as a rule; who runs a tunnel server wants to see that it has none.
func TestTheTableOfClientsOfABalancer(t *testing.T) {
	for _, tt := range []struct {
		mode    string
		clients []Client
		want    bool
	}{{"tcp", nil, true}, {"lb", nil, false}, {"lb", []Client{{ClientID: "a"}}, true}} {
		var b strings.Builder
		if err := Print(&b, Status{Info: Info{Mode: tt.mode}, Clients: tt.clients, Upstreams: []Upstream{{Name: "app"}}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "\n\nClient ID"); got != tt.want || strings.Contains(b.String(), "\n\n\n") || !strings.Contains(b.String(), "\n\nUpstream") {
			t.Errorf("mode %s with %d clients:\n%s", tt.mode, len(tt.clients), &b)
		}
	}
}

func TestWhomAnOperatorMeans(t *testing.T) {
	const client = "730aa1bb96474cbc9f7e76c135e81da8/22fbfe123c884e8284ee0da3680c1311"
	for _, tt := range []struct {
		member, typed string
		want          bool
	}{
		{client, client, true},
		{client, brief(client), true},
		{client, "730aa1bb", true},
		{client, "730aa1b", false}, // too little
		{client, "730aa1bb/22fbfe13", false},
		{client, "730aa1bb/22fbfe12/x", false},
		{"edge-1/22fbfe123c884e8284ee0da3680c1311", "edge-1", true},
		{"edge-10/22fbfe123c884e8284ee0da3680c1311", "edge-1", false},
		{"10.0.0.1:80", "10.0.0.1:80", true},
		{"10.0.0.1:8080", "10.0.0.1:80", false},
		{"unix:/run/app.sock", "unix:", false},
		{"", "", true},
		{client, "", false},
	} {
		if got := Called(tt.member, tt.typed); got != tt.want {
			t.Errorf("%q for %q: got %t, want %t", tt.typed, tt.member, got, tt.want)
		}
	}
}
