package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/udp"
)

// The reasons for which a visitor's datagram is dropped, a bounded set that serves as a metric label.
const (
	droppedTableFull = "table_full" // there are as many flows as there may be
	droppedPerSource = "per_source" // the source has as many flows as it may
	droppedRate      = "rate"       // the source sends more datagrams a second than it may
	droppedNoMember  = "no_member"  // no member takes the flow
	droppedWaiting   = "waiting"    // more came than may wait while the flow gets its member
	droppedFull      = "full"       // the way to the member takes nothing at the moment
	droppedTooLong   = "too_long"   // for the way to the member, with its PROXY header
	droppedDraining  = "draining"   // no new flows are taken any more
	droppedProxy     = "proxy"      // a PROXY header that is missing, malformed or not wanted
	droppedLate      = "late"       // an answer to a visitor that was silent for longer than the idle timeout
)

// The reasons for which a flow moves to another member.
const (
	movedRefused  = "refused"  // the service refused the datagram
	movedFailed   = "failed"   // the connection to the member failed
	movedLost     = "lost"     // the member is down, or gone
	movedRerouted = "rerouted" // the routes lead elsewhere now
)

// UDPMetrics counts the traffic of UDP entrypoints. A nil *UDPMetrics counts nothing.
type UDPMetrics struct {
	open      *prometheus.GaugeVec   // entrypoint
	opened    *prometheus.CounterVec // entrypoint
	datagrams *prometheus.CounterVec // entrypoint, direction
	bytes     *prometheus.CounterVec // entrypoint, direction
	dropped   *prometheus.CounterVec // entrypoint, reason
	moved     *prometheus.CounterVec // entrypoint, reason
	replaced  *prometheus.CounterVec // entrypoint
}

// NewUDPMetrics registers the metrics. It panics if one of them is registered already.
func NewUDPMetrics(reg prometheus.Registerer) *UDPMetrics {
	m := &UDPMetrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "culvert_udp_flows", Help: "Flows of visitors that are open.",
		}, []string{"entrypoint"}),
		opened:    counters("culvert_udp_flows_total", "Flows of visitors that were begun.", "entrypoint"),
		datagrams: counters("culvert_udp_datagrams_total", "Datagrams relayed: in from visitors, out to them.", "entrypoint", "direction"),
		bytes:     counters("culvert_udp_bytes_total", "Bytes of datagrams relayed: in from visitors, out to them.", "entrypoint", "direction"),
		dropped:   counters("culvert_udp_dropped_total", "Datagrams that were not relayed, by reason.", "entrypoint", "reason"),
		moved:     counters("culvert_udp_moved_flows_total", "Flows that went on at another member, by reason.", "entrypoint", "reason"),
		replaced:  counters("culvert_udp_replaced_flows_total", "Flows that were over and gave their place to a new one.", "entrypoint"),
	}
	reg.MustRegister(m.open, m.opened, m.datagrams, m.bytes, m.dropped, m.moved, m.replaced)
	return m
}

// Refused counts a datagram that the entrypoint did not hear. It is made to be, for one label, its OnRefused.
func (m *UDPMetrics) Refused(entrypoint, reason string) {
	if m != nil {
		m.dropped.WithLabelValues(entrypoint, reason).Inc()
	}
}

// Forget drops the series of an entrypoint that is no more.
func (m *UDPMetrics) Forget(entrypoint string) {
	if m == nil {
		return
	}
	labels := prometheus.Labels{"entrypoint": entrypoint}
	m.open.DeletePartialMatch(labels)
	for _, v := range []*prometheus.CounterVec{m.opened, m.datagrams, m.bytes, m.dropped, m.moved, m.replaced} {
		v.DeletePartialMatch(labels)
	}
}

// udpCounters are those of one entrypoint, looked up once.
type udpCounters struct {
	m         *UDPMetrics // nil counts nothing
	label     string
	open      prometheus.Gauge
	opened    prometheus.Counter
	replaced  prometheus.Counter
	datagrams [2]prometheus.Counter // by Direction
	bytes     [2]prometheus.Counter
}

func (m *UDPMetrics) of(label string) udpCounters {
	if m == nil {
		return udpCounters{}
	}
	c := udpCounters{
		m: m, label: label, open: m.open.WithLabelValues(label), opened: m.opened.WithLabelValues(label),
		replaced: m.replaced.WithLabelValues(label),
	}
	for d, name := range [2]string{In: "in", Out: "out"} {
		c.datagrams[d] = m.datagrams.WithLabelValues(label, name)
		c.bytes[d] = m.bytes.WithLabelValues(label, name)
	}
	return c
}

func (c *udpCounters) begun() {
	if c.m != nil {
		c.opened.Inc()
		c.open.Inc()
	}
}

func (c *udpCounters) ended() {
	if c.m != nil {
		c.open.Dec()
	}
}

func (c *udpCounters) replace() {
	if c.m != nil {
		c.replaced.Inc()
	}
}

func (c *udpCounters) relayed(d Direction, n int) {
	if c.m != nil {
		c.datagrams[d].Inc()
		c.bytes[d].Add(float64(n))
	}
}

// unsent counts a datagram that was dropped on the way to a member.
func (c *udpCounters) unsent(err error) {
	if errors.Is(err, udp.ErrTooLong) {
		c.drop(droppedTooLong, 1)
		return
	}
	c.drop(droppedFull, 1)
}

func (c *udpCounters) drop(reason string, n int) {
	if c.m != nil && n > 0 {
		c.m.dropped.WithLabelValues(c.label, reason).Add(float64(n))
	}
}

func (c *udpCounters) move(reason string) {
	if c.m != nil {
		c.m.moved.WithLabelValues(c.label, reason).Inc()
	}
}
