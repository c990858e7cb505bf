package dataplane

import (
	"net"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/accesslog"
	"culvert/internal/proxy"
)

// Names that are gone leave no series behind, or every port that a client ever opened would stay.
func TestMetricsForgetEntrypoints(t *testing.T) {
	d := start(t)
	reg := prometheus.NewRegistry()
	d.cfg.Counters, d.cfg.UDPMetrics = NewCounters(reg), proxy.NewUDPMetrics(reg)
	d.cfg.Records = accesslog.New(accesslog.Config{Records: 64})
	series := func(label string) (list []string) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.Metric {
				if strings.Contains(m.String(), label) {
					list = append(list, f.GetName())
				}
			}
		}
		return list
	}
	addr := free(t, "udp")
	_, port, _ := net.SplitHostPort(addr)
	p := offer(t, d, "udp/"+port, newClient("a", echoes(t, "a")))
	if got := flow(t, "127.0.0.1", addr)("x"); !strings.HasPrefix(got, "a ") {
		t.Fatalf("got %q", got)
	}
	if len(series("udp/"+port)) == 0 {
		t.Error("a port has no metrics")
	}
	p.Withdraw()
	await(t, "the metrics of the port to go", func() bool { return len(series("udp/"+port)) == 0 })

	vars := map[string]string{"addr": free(t, "tcp"), "datagrams": free(t, "udp"), "app": named(t, "app"), "echo": echoes(t, "echo")}
	text := `
entrypoints:
  - {name: before, protocol: tcp, addr: "$addr", routes: [{upstream: app}]}
  - {name: before-udp, protocol: udp, addr: "$datagrams", routes: [{upstream: echo}]}
upstreams: [{name: app, members: [{address: "$app"}]}, {name: echo, members: [{address: "$echo"}]}]
`
	apply(t, d, read(t, text, vars))
	visit(t, "127.0.0.1", vars["addr"])
	flow(t, "127.0.0.1", vars["datagrams"])("x")
	apply(t, d, read(t, strings.ReplaceAll(text, "before", "after"), vars))
	await(t, "the metrics of the old names to go", func() bool { return len(series("before")) == 0 })
	visit(t, "127.0.0.1", vars["addr"])
	if len(series("after")) == 0 {
		t.Error("the new names have no metrics")
	}
}
