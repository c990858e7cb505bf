//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// An operator sees in the status and in the metrics that a client's session lost its link and went on.
func TestFiguresOfASessionAfterACut(t *testing.T) {
	s := startServer(t)
	relay := startCutter(t, s.control)
	echo := freeAddr(t)
	s.clientBy(t, "wss://"+relay.addr, "client", "--id", "cut", "--upstream", port(t, echo)+"="+startEcho(t).addr)
	s.members(t, 1, patience)
	open := dialEcho(t, echo)
	open.echoes(t, patience)
	cuts := rounds(2, 20)
	for range cuts {
		relay.cut(t)
		until(t, "the client has lost its link", func() bool { return links(t, s) == 0 })
		relay.mend(t)
		open.echoes(t, patience)
	}

	var st status
	eventually(t, 10*time.Second, "status shows the session's figures", func(ctx context.Context) (err error) {
		if st, err = s.status(ctx); err != nil {
			return err
		}
		if len(st.Clients) != 1 {
			return fmt.Errorf("%d clients", len(st.Clients))
		}
		if c := st.Clients[0]; c.Links < 1 || c.Resumes < cuts || c.RTTMillis <= 0 {
			return fmt.Errorf("links %d, resumes %d after %d cuts, rtt %v ms", c.Links, c.Resumes, cuts, c.RTTMillis)
		}
		return nil
	})
	c := st.Clients[0]
	t.Logf("status after %d cuts: links %d, resumes %d, rtt %v ms", cuts, c.Links, c.Resumes, c.RTTMillis)

	m := s.metrics(t)
	for _, want := range []struct {
		name   string
		labels []string
		least  float64
	}{
		{"culvert_session_resumes_total", nil, float64(cuts)},
		{"culvert_session_pauses_total", nil, float64(cuts)},
		{"culvert_session_links", nil, 1},
		{"culvert_session_streams", nil, 1},
		{"culvert_session_rtt_seconds", nil, 1e-6},
		{"culvert_session_bytes_total", []string{`direction="in"`}, 1},
		{"culvert_session_bytes_total", []string{`direction="out"`}, 1},
		{"culvert_session_retransmitted_bytes_total", nil, 0},
		{"culvert_session_window_limited_seconds_total", nil, 0},
		{"culvert_session_memory_bytes", nil, 0},
	} {
		if err := has(m, want.name, want.least, want.labels...); err != nil {
			t.Errorf("/metrics: %v", err)
		}
	}
	out := must(t, program{argv: []string{culvert(), "status", "--url", "wss://" + s.control, "--token-file", s.state + "/token"}})
	t.Logf("culvert status:\n%s", out)
	for _, want := range []string{"Links", "Resumes", "Round Trip"} {
		if !strings.Contains(out, want) {
			t.Errorf("culvert status does not show %s", want)
		}
	}
}

// links is how many the only client has; 0 also while it is not listed.
func links(t *testing.T, s *server) int {
	t.Helper()
	st, err := s.status(t.Context())
	if err != nil || len(st.Clients) == 0 {
		return 0
	}
	return st.Clients[0].Links
}

// has says whether a metric is there, and at least so high.
func has(samples map[string]float64, name string, least float64, labels ...string) error {
	found := false
	for key := range samples {
		have, _, _ := strings.Cut(key, "{")
		found = found || have == name
	}
	if !found {
		return errors.New(name + " is missing")
	}
	if got := sum(samples, name, labels...); got < least {
		return fmt.Errorf("%s%v is %v, want %v or more", name, labels, got, least)
	}
	return nil
}
