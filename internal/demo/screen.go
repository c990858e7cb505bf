package demo

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// screen shows the load's figures as they come.
type screen struct {
	cfg      Config
	load     *load
	begun    time.Time
	drawn    bool // two lines of figures stand at the end of a terminal
	web, tcp reading
}

func newScreen(cfg Config, l *load) *screen { return &screen{cfg: cfg, load: l, begun: time.Now()} }

// draw shows the figures of the last second, in place of the ones before if that is possible.
func (s *screen) draw() {
	web, tcp := s.load.read()
	if !s.cfg.JSON {
		if s.cfg.Terminal && s.drawn {
			fmt.Fprint(s.cfg.Out, "\x1b[2F\x1b[J") // two lines up, clear from there
		}
		at := time.Since(s.begun).Round(time.Second)
		fmt.Fprintf(s.cfg.Out, "%5s  http  %s\n       tcp   %s\n", at, s.line(s.web, web, "requests"), s.line(s.tcp, tcp, "connections"))
		s.drawn = true
	}
	s.web, s.tcp = web, tcp
}

func (s *screen) line(before, now reading, unit string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%5d %s/s  p50 %5.1f ms  p99 %5.1f ms  %6.1f KB/s  failed %d ", now.visits-before.visits, unit,
		millis(now.p50), millis(now.p99), float64(now.bytes-before.bytes)/1000, now.failed)
	if now.cut > 0 {
		fmt.Fprintf(&b, "(cut by the kill: %d) ", now.cut)
	}
	for _, name := range []string{"one", "two"} {
		fmt.Fprintf(&b, " client %s %d", name, now.by[name]-before.by[name])
	}
	return b.String()
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// event tells what happened, above the figures that follow.
func (s *screen) event(text string) {
	if s.cfg.JSON {
		return
	}
	fmt.Fprintf(s.cfg.Out, "  >>   %s\n", text)
	s.drawn = false
}

// summary is what the demo came to.
type summary struct {
	Seconds float64 `json:"seconds"`
	HTTP    tally   `json:"http"`
	TCP     tally   `json:"tcp"`
	Killed  bool    `json:"killed"`
}

func (l *load) summary() summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	return summary{Seconds: time.Since(l.begun).Seconds(), HTTP: l.web, TCP: l.tcp, Killed: !l.killed.IsZero()}
}

func (s summary) print(cfg Config) error {
	if cfg.JSON {
		return json.NewEncoder(cfg.Out).Encode(s)
	}
	kill := ""
	if s.Killed {
		kill = ", with one of two clients killed on the way"
	}
	_, err := fmt.Fprintf(cfg.Out, `
In %.0f s%s:
  http  %6d requests     failed %d   answered by client one %d, two %d
  tcp   %6d connections  failed %d   answered by client one %d, two %d   cut in mid-flight by the kill %d
`, s.Seconds, kill,
		s.HTTP.Visits, s.HTTP.Failed, s.HTTP.By["one"], s.HTTP.By["two"],
		s.TCP.Visits, s.TCP.Failed, s.TCP.By["one"], s.TCP.By["two"], s.TCP.Cut)
	return err
}

// verdict is an error if something failed that should not have.
func (s summary) verdict() error {
	if s.HTTP.Failed+s.TCP.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%d requests and %d connections failed: %s", s.HTTP.Failed, s.TCP.Failed,
		strings.Join(append(s.HTTP.Faults, s.TCP.Faults...), "; "))
}
