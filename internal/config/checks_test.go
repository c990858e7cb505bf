package config

import (
	"strings"
	"testing"
	"time"

	"culvert/internal/client"
)

func checkedClient(upstreams, checks []string) (*Client, error) {
	c := NewClient(Mixed)
	c.URL, c.Upstream, c.InsecureNoAuth, c.AutoTLS = []string{"wss://a"}, upstreams, true, false
	c.HealthCheck = checks
	return &c, c.Resolve(Environment{Lookup: func(string) (string, bool) { return "", false }})
}

func TestHealthChecksFindTheirUpstreams(t *testing.T) {
	folder := t.TempDir()
	c, err := checkedClient([]string{
		"app.example.com/api=http://127.0.0.1:1", "2222=127.0.0.1:22", "name/db=127.0.0.1:3", "*=file:" + folder, "5432=unix:/run/pg",
	}, []string{
		"app.example.com/api=http:/healthz?a=b", `2222=expect:\r\n,|SSH=2`, "tcp",
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range c.Upstreams {
		check := "none"
		if u.Check != nil {
			check = u.Check.String()
			if u.Check.Interval != 2*time.Second || u.Check.Timeout != time.Second || u.Check.Rise != 2 || u.Check.Fall != 3 {
				t.Errorf("%s: times %+v", u.Spec, u.Check)
			}
		}
		got = append(got, check)
	}
	want := `http:/healthz?a=b expect:\r\n,|SSH=2 tcp none tcp`
	if strings.Join(got, " ") != want {
		t.Errorf("checks %s, want %s", strings.Join(got, " "), want)
	}
}

func TestWrongHealthChecks(t *testing.T) {
	for name, test := range map[string]struct {
		checks []string
		want   string
	}{
		"unknown kind":      {[]string{"ping"}, `"ping" is unknown`},
		"no such upstream":  {[]string{"2223=tcp"}, "there is no such upstream"},
		"twice for all":     {[]string{"tcp", "http"}, "both for every service"},
		"twice for one":     {[]string{"2222=tcp", "2222=expect:x"}, "both for port 2222"},
		"a folder":          {[]string{"*=http:/"}, "a folder is not checked"},
		"udp of tcp":        {[]string{"2222=udp:x"}, "is for UDP services"},
		"a port of a path":  {[]string{"5432=tcp:9"}, "has no port"},
		"not a left side":   {[]string{"tcp/2222=tcp"}, "write the port alone"},
		"an unknown escape": {[]string{`expect:\q`}, `\q is unknown`},
	} {
		_, err := checkedClient([]string{"2222=127.0.0.1:22", "*=file:" + t.TempDir(), "5432=unix:/run/pg"}, test.checks)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, test.want)
		}
	}
}

func TestLinesKeepTheirCommas(t *testing.T) {
	var c Client
	s := Describe(&c, Mixed)
	flag := s.Lookup("health-check")
	flag.Set("expect:a,b|c")
	flag.Set("2222=tcp")
	if got := strings.Join(c.HealthCheck, ";"); got != "expect:a,b|c;2222=tcp" || !flag.Repeatable() {
		t.Errorf("got %s", got)
	}
}

func TestWeightsAndTimesOfChecks(t *testing.T) {
	for want, set := range map[string]func(*Client){
		"--weight: 0; give 1 to 65536":        func(c *Client) { c.Weight = 0 },
		"--weight: 65537; give":               func(c *Client) { c.Weight = 65537 },
		"--health-interval: 1ms is too short": func(c *Client) { c.HealthInterval = time.Millisecond },
		"--health-timeout: 0s is too short":   func(c *Client) { c.HealthTimeout = 0 },
		"--health-rise: 0; give 1":            func(c *Client) { c.HealthRise = 0 },
		"--health-fall: 1001; give 1":         func(c *Client) { c.HealthFall = 1001 },
	} {
		c := NewClient(TCP)
		c.Upstreams = []client.Upstream{}
		set(&c)
		if err := c.validate().Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}
