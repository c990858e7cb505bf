package admin

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrint(t *testing.T) {
	now := time.Date(2021, 8, 8, 12, 0, 0, 0, time.UTC)
	s := Status{
		Info: Info{Version: "0.8.9-rc1", SHA: "f4fc15b", Mode: "tcp", StartTime: now.Add(-49*time.Minute - 10*time.Second), Hostname: "unruffled-banzai4"},
		Clients: []Client{
			{
				ClientID: "730aa1bb96474cbc9f7e76c135e81da8", RemoteAddr: "81.99.136.188:58102", Since: now.Add(-15 * time.Minute),
				Upstreams: []string{"localhost:8001", "localhost:8000", "localhost:2222"},
				RTTMillis: 12.345, Links: 2, Resumes: 3,
				Tunnels: []Tunnel{{Name: "tcp/8001", Down: "connection\trefused"}, {Name: "tcp/8000"}, {Name: "tcp/2222", Down: "timeout"}},
			},
			{
				ClientID: "22fbfe123c884e8284ee0da3680c1311", RemoteAddr: "81.99.136.188:64018", Since: now.Add(-6 * time.Minute), Upstreams: []string{"localhost:8001"},
				Tunnels: []Tunnel{{Name: "tcp/8001"}},
			},
			{ClientID: "evil\x1b[2J\n", RemoteAddr: "[2001:db8::1]:1", Since: now.Add(time.Hour), Upstreams: []string{"a\tb"}},
		},
	}
	var b strings.Builder
	if err := Print(&b, s, now); err != nil {
		t.Fatal(err)
	}
	want := `Hostname: unruffled-banzai4
Started: 49 minutes
Mode: tcp
Version:        0.8.9-rc1

Client ID                        Remote Address      Connected  Upstreams
730aa1bb96474cbc9f7e76c135e81da8 81.99.136.188:58102 15 minutes localhost:8001, localhost:8000, localhost:2222
22fbfe123c884e8284ee0da3680c1311 81.99.136.188:64018 6 minutes  localhost:8001
evil?[2J?                        [2001:db8::1]:1     0 seconds  a?b

Client ID                        Round Trip Links Resumes Connections
730aa1bb96474cbc9f7e76c135e81da8 12.3 ms    2     3       0
22fbfe123c884e8284ee0da3680c1311 0.0 ms     0     0       0
evil?[2J?                        0.0 ms     0     0       0

Client ID                        Down by Its Check Last Error
730aa1bb96474cbc9f7e76c135e81da8 tcp/8001          connection?refused
730aa1bb96474cbc9f7e76c135e81da8 tcp/2222          timeout
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

func TestAgo(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Second: "0 seconds", 0: "0 seconds", time.Second: "1 second", 59 * time.Second: "59 seconds",
		time.Minute: "1 minute", 119 * time.Second: "1 minute", 49 * time.Minute: "49 minutes",
		time.Hour: "1 hour", 23*time.Hour + 59*time.Minute: "23 hours", day: "1 day", 47 * time.Hour: "1 day", 400 * day: "400 days",
	} {
		now := time.Now()
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("%v ago is %q, want %q", d, got, want)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no") }

func TestPrintSaysWhenItCannot(t *testing.T) {
	if err := Print(broken{}, Status{}, time.Now()); err == nil {
		t.Error("no error")
	}
}
