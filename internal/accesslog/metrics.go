package accesslog

import "github.com/prometheus/client_golang/prometheus"

// The reasons of a line that is not written.
const (
	dropBehind = "behind" // more lines waited than may
	dropFailed = "failed" // the file would not take them
)

type metrics struct {
	written prometheus.Counter
	behind  prometheus.Counter
	failed  prometheus.Counter
}

// newMetrics registers the metrics of the written log.
func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{written: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "culvert_access_log_lines_total", Help: "Lines written to the access log.",
	})}
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "culvert_access_log_dropped_total",
		Help: "Lines of the access log that were not written: behind, as the file did not keep up, or failed, as it refused them.",
	}, []string{"reason"})
	m.behind, m.failed = dropped.WithLabelValues(dropBehind), dropped.WithLabelValues(dropFailed)
	if reg != nil {
		reg.MustRegister(m.written, dropped)
	}
	return m
}
