package proxy

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/upstream"
)

// Mode says which kinds of traffic a process carries.
type Mode struct{ HTTP, TCP bool }

// Metrics counts the traffic of the data path. A nil *Metrics counts nothing, and so does the part of a kind of traffic
// that the process does not carry. Label values are bounded: a host is the pattern that matched, a method is a known one.
type Metrics struct {
	http httpMetrics
	tcp  tcpMetrics
}

type httpMetrics struct {
	requests    *prometheus.CounterVec   // code, host, method
	duration    *prometheus.HistogramVec // code, host, method
	bytes       [2]prometheus.Counter    // by Direction
	failedOpens *prometheus.CounterVec   // reason
	refused     *prometheus.CounterVec   // reason
}

type tcpMetrics struct {
	open        *prometheus.GaugeVec   // port
	opened      *prometheus.CounterVec // port
	bytes       [2]prometheus.Counter  // by Direction
	failedOpens *prometheus.CounterVec // reason
	refused     *prometheus.CounterVec // reason
}

// NewMetrics registers the metrics of the mode, and only those. It panics if one of them is registered already.
func NewMetrics(reg prometheus.Registerer, mode Mode) *Metrics {
	m := &Metrics{}
	if mode.HTTP {
		m.http = newHTTPMetrics(reg)
	}
	if mode.TCP {
		m.tcp = newTCPMetrics(reg)
	}
	return m
}

func newHTTPMetrics(reg prometheus.Registerer) httpMetrics {
	labels := []string{"code", "host", "method"}
	m := httpMetrics{
		requests: counters("http_dataplane_requests_total", "Requests of visitors that were answered.", labels...),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_dataplane_request_duration_seconds",
			Help:    "Time from a request's head to the end of its answer.",
			Buckets: prometheus.DefBuckets,
		}, labels),
		failedOpens: counters("http_dataplane_failed_opens_total", "Connections to members that were not made, by reason.", "reason"),
		refused:     counters("http_dataplane_connections_refused_total", "Connections of visitors that were closed without a request, by reason.", "reason"),
	}
	bytes := counters("http_dataplane_bytes_total", "Bytes of bodies and of upgraded connections: in from visitors, out to them.", "direction")
	m.bytes = byDirection(bytes)
	reg.MustRegister(m.requests, m.duration, m.failedOpens, m.refused, bytes)
	return m
}

func newTCPMetrics(reg prometheus.Registerer) tcpMetrics {
	m := tcpMetrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tcp_dataplane_connections_gauge", Help: "Connections of visitors that are open.",
		}, []string{"port"}),
		opened:      counters("tcp_dataplane_connections_total", "Connections of visitors that were accepted.", "port"),
		failedOpens: counters("tcp_dataplane_failed_opens_total", "Connections to members that were not made, by reason.", "reason"),
		refused:     counters("tcp_dataplane_connections_refused_total", "Connections of visitors that were closed at once, by reason.", "reason"),
	}
	bytes := counters("tcp_dataplane_bytes_total", "Bytes relayed: in from visitors, out to them.", "direction")
	m.bytes = byDirection(bytes)
	reg.MustRegister(m.open, m.opened, m.failedOpens, m.refused, bytes)
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func byDirection(v *prometheus.CounterVec) [2]prometheus.Counter {
	return [2]prometheus.Counter{In: v.WithLabelValues("in"), Out: v.WithLabelValues("out")}
}

// FailedTCPOpen counts a failed dial for a TCP visitor. It is made to be an upstream's OnFailedDial.
func (m *Metrics) FailedTCPOpen(_ upstream.Member, r upstream.Reason) {
	if m != nil && m.tcp.failedOpens != nil {
		m.tcp.failedOpens.WithLabelValues(string(r)).Inc()
	}
}

// RefusedHTTP counts a connection of a visitor that an HTTP entrypoint refused. It is made to be its OnRefused.
func (m *Metrics) RefusedHTTP(reason string) {
	if m != nil && m.http.refused != nil {
		m.http.refused.WithLabelValues(reason).Inc()
	}
}

// RefusedTCP counts a connection of a visitor that a TCP entrypoint refused. It is made to be its OnRefused.
func (m *Metrics) RefusedTCP(reason string) {
	if m != nil && m.tcp.refused != nil {
		m.tcp.refused.WithLabelValues(reason).Inc()
	}
}

func (m *Metrics) failedHTTPOpen(r upstream.Reason) {
	if m != nil && m.http.failedOpens != nil {
		m.http.failedOpens.WithLabelValues(string(r)).Inc()
	}
}

func (m *Metrics) request(code int, host, method string, took time.Duration) {
	if m == nil || m.http.requests == nil {
		return
	}
	status, method := statusLabel(code), methodLabel(method)
	m.http.requests.WithLabelValues(status, host, method).Inc()
	m.http.duration.WithLabelValues(status, host, method).Observe(took.Seconds())
}

func (m *Metrics) httpBytes(d Direction, n int) {
	if m != nil && m.http.bytes[d] != nil && n > 0 {
		m.http.bytes[d].Add(float64(n))
	}
}

// portMetrics counts the connections of one port. The zero portMetrics counts nothing.
type portMetrics struct {
	opened prometheus.Counter
	open   prometheus.Gauge
}

// tcpPort looks a port's counters up, once for all of its connections.
func (m *Metrics) tcpPort(port string) portMetrics {
	if m == nil || m.tcp.open == nil {
		return portMetrics{}
	}
	return portMetrics{m.tcp.opened.WithLabelValues(port), m.tcp.open.WithLabelValues(port)}
}

func (p portMetrics) begun() {
	if p.open != nil {
		p.opened.Inc()
		p.open.Inc()
	}
}

func (p portMetrics) ended() {
	if p.open != nil {
		p.open.Dec()
	}
}

func (m *Metrics) tcpBytes(d Direction, n int) {
	if m != nil && m.tcp.bytes[d] != nil {
		m.tcp.bytes[d].Add(float64(n))
	}
}

// methodLabel bounds what visitors can make a label of.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	default:
		return "other"
	}
}

// statusLabel bounds what services can make a label of.
func statusLabel(code int) string {
	if code < 100 || code > 599 {
		return "other"
	}
	return strconv.Itoa(code)
}
