package proxy

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/upstream"
)

var update = flag.Bool("update", false, "write the golden files")

// names gives the metrics of a registry, with their types and labels.
func names(t *testing.T, reg prometheus.Gatherer) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		lines = append(lines, f.GetName()+"{"+strings.Join(labels, ",")+"} "+strings.ToLower(f.GetType().String())+" "+f.GetHelp()+"\n")
	}
	return strings.Join(lines, "")
}

// Dashboards and alerts are written against these names.
func TestMetricNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		mode Mode
	}{
		{"http", Mode{HTTP: true}},
		{"tcp", Mode{TCP: true}},
		{"mixed", Mode{HTTP: true, TCP: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			m := NewMetrics(reg, tt.mode)
			m.request(200, "*", "GET", time.Second)
			m.failedHTTPOpen(upstream.Refused)
			m.FailedTCPOpen(nil, upstream.NoMember)
			m.RefusedHTTP("source")
			m.RefusedTCP("source")
			m.httpBytes(In, 1)
			m.tcpBytes(Out, 1)
			m.tcpPort("2222").begun()
			got := names(t, reg)
			file := "testdata/metrics_" + tt.name + ".golden"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("metrics (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNoMetricsCountNothing(t *testing.T) {
	for _, m := range []*Metrics{nil, NewMetrics(prometheus.NewRegistry(), Mode{})} {
		m.request(200, "*", "GET", time.Second)
		m.failedHTTPOpen(upstream.Refused)
		m.FailedTCPOpen(nil, upstream.NoMember)
		m.RefusedHTTP("source")
		m.RefusedTCP("source")
		m.httpBytes(In, 1)
		m.tcpBytes(Out, 1)
		m.tcpPort("2222").begun()
	}
}

func TestRequestsAreCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg, Mode{HTTP: true})
	s := newSite(t, m, static(closedPort, upstream.HTTP1), member(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/none" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, "four")
	}))
	s.do(t, http.MethodGet, "/", nil, nil)
	s.do(t, http.MethodPost, "/", []byte("hello"), nil)
	s.do(t, http.MethodGet, "/none", nil, nil)
	s.do(t, "BREW", "/", nil, nil)
	s.do(t, "PROPFIND", "/", nil, nil)
	raw(t, s, "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n")
	s.pools.close() // the server has counted when the answer's end is there, or a moment later
	wantEventually(t, reg, "http_dataplane_requests_total", map[string]float64{
		`code="200" host="*" method="GET"`:   1,
		`code="200" host="*" method="POST"`:  1,
		`code="200" host="*" method="other"`: 2,
		`code="400" host="" method="GET"`:    1,
		`code="404" host="*" method="GET"`:   1,
	})
	wantEventually(t, reg, "http_dataplane_failed_opens_total", map[string]float64{`reason="refused"`: 3})
	got := values(t, reg, "http_dataplane_bytes_total")
	if in, out := got[`direction="in"`], got[`direction="out"`]; in != 5 || out < 5*4 {
		t.Errorf("%v bytes in and %v out, want 5, and 20 and an error's", in, out)
	}
}

// values are a metric's values by their labels.
func values(t *testing.T, reg prometheus.Gatherer, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			all[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

// wantEventually compares a metric's values, for as long as a handler may need to return.
func wantEventually(t *testing.T, reg prometheus.Gatherer, name string, want map[string]float64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var diff string
	for range 5000 {
		if diff = cmp.Diff(want, values(t, reg, name)); diff == "" {
			return
		}
		<-tick.C
	}
	t.Errorf("%s (-want +got):\n%s", name, diff)
}

func TestUpgradedConnectionsAreCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg, Mode{HTTP: true})
	s := newSite(t, m, member(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		_, p, _ := c.Read(r.Context())
		_ = c.Write(r.Context(), websocket.MessageText, p)
		_ = c.Close(websocket.StatusNormalClosure, "")
	}))
	c, _, err := websocket.Dial(t.Context(), s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Repeat("x", 1000)
	_ = c.Write(t.Context(), websocket.MessageText, []byte(words))
	_, _, _ = c.Read(t.Context())
	_, _, _ = c.Read(t.Context())
	_ = c.CloseNow()
	wantEventually(t, reg, "http_dataplane_requests_total", map[string]float64{`code="101" host="*" method="GET"`: 1})
	for direction, n := range values(t, reg, "http_dataplane_bytes_total") {
		if n < 1000 || n > 1200 {
			t.Errorf("%v bytes with %s, want about 1000", n, direction)
		}
	}
}

func TestTCPIsCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg, Mode{TCP: true})
	u := upstreamOf(static(closedPort, upstream.Raw), static(service(t, echo), upstream.Raw))
	u.Reconfigure(upstream.Config{Name: "test", Retries: -1, OnFailedDial: m.FailedTCPOpen})
	near, far := pair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		NewTCP(TCPConfig{Settings: Settings{Routes: RoutesTo(u), Label: "2222"}, Metrics: m, Log: quiet()}).Serve(t.Context(), upstream.FromTCP(far))
	}()
	say(t, near, "hello")
	_, _ = io.ReadFull(near, make([]byte, 5))
	wantEventually(t, reg, "tcp_dataplane_connections_gauge", map[string]float64{`port="2222"`: 1})
	near.Close()
	<-served
	for name, want := range map[string]map[string]float64{
		"tcp_dataplane_connections_gauge":  {`port="2222"`: 0},
		"tcp_dataplane_connections_total":  {`port="2222"`: 1},
		"tcp_dataplane_failed_opens_total": {`reason="refused"`: 1},
		"tcp_dataplane_bytes_total":        {`direction="in"`: 5, `direction="out"`: 5},
	} {
		if diff := cmp.Diff(want, values(t, reg, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestLabelsAreBounded(t *testing.T) {
	for in, want := range map[string]string{"GET": "GET", "get": "other", "": "other", "X\n": "other"} {
		if got := methodLabel(in); got != want {
			t.Errorf("method %q became %q, want %q", in, got, want)
		}
	}
	for in, want := range map[int]string{200: "200", 499: "499", 999: "other", 0: "other"} {
		if got := statusLabel(in); got != want {
			t.Errorf("status %d became %q, want %q", in, got, want)
		}
	}
}

func BenchmarkHTTPRoundTrip(b *testing.B) {
	for _, size := range []int{100, 100 << 10} {
		b.Run(map[bool]string{true: "small", false: "100 KiB"}[size == 100], func(b *testing.B) {
			answer := make([]byte, size)
			s := newSite(b, NewMetrics(prometheus.NewRegistry(), Mode{HTTP: true}), member(b, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write(answer)
			}))
			b.ReportAllocs()
			for b.Loop() {
				res, err := s.visitor.Get(s.url)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}

func TestUDPMetricNames(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewUDPMetrics(reg)
	m.Refused("dns", "source")
	c := m.of("dns")
	c.begun()
	c.relayed(In, 1)
	c.relayed(Out, 1)
	c.move(movedRefused)
	got := names(t, reg)
	const file = "testdata/metrics_udp.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	m.Forget("dns")
	if got := names(t, reg); got != "" {
		t.Errorf("after Forget there are %s", got)
	}
}
