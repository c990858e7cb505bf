package proxy

import "github.com/prometheus/client_golang/prometheus"

// CountsVec counts the connections and bytes of entrypoints, by name.
type CountsVec struct {
	opened, bytes *prometheus.CounterVec
	open          *prometheus.GaugeVec
}

// NewCountsVec registers the metrics. It panics if one of them is registered already.
func NewCountsVec(reg prometheus.Registerer) CountsVec {
	v := CountsVec{
		opened: counters("culvert_entrypoint_connections_total", "Connections and flows that an entrypoint accepted.", "entrypoint"),
		bytes:  counters("culvert_entrypoint_bytes_total", "Bytes relayed: in from visitors, out to them.", "entrypoint", "direction"),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "culvert_entrypoint_connections", Help: "Connections and flows of an entrypoint that are open.",
		}, []string{"entrypoint"}),
	}
	reg.MustRegister(v.opened, v.bytes, v.open)
	return v
}

// Counts counts what one entrypoint does. The zero Counts counts nothing.
type Counts struct {
	opened prometheus.Counter
	open   prometheus.Gauge
	bytes  [2]prometheus.Counter // by Direction
}

// Of looks an entrypoint's counts up.
func (v CountsVec) Of(entrypoint string) Counts {
	return Counts{
		v.opened.WithLabelValues(entrypoint), v.open.WithLabelValues(entrypoint),
		[2]prometheus.Counter{In: v.bytes.WithLabelValues(entrypoint, "in"), Out: v.bytes.WithLabelValues(entrypoint, "out")},
	}
}

// Forget drops what was counted of an entrypoint that is gone.
func (v CountsVec) Forget(entrypoint string) {
	label := prometheus.Labels{"entrypoint": entrypoint}
	v.opened.DeletePartialMatch(label)
	v.bytes.DeletePartialMatch(label)
	v.open.DeletePartialMatch(label)
}

// Begun counts a connection or flow that opens, Ended its end.
func (c *Counts) Begun() {
	if c.open != nil {
		c.opened.Inc()
		c.open.Inc()
	}
}

// Ended counts the end of a connection or flow.
func (c *Counts) Ended() {
	if c.open != nil {
		c.open.Dec()
	}
}

// Moved counts bytes.
func (c *Counts) Moved(d Direction, n int) {
	if c.bytes[d] != nil {
		c.bytes[d].Add(float64(n))
	}
}
