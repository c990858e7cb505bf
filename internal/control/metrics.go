package control

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/tunnel"
	"culvert/internal/tunnel/ws"
)

// Metrics are the control plane's. Their names carry the kinds of tunnel that the server carries, as the operators
// of such tunnels know them.
type Metrics struct {
	connected     map[tunnel.Kind]prometheus.Gauge
	requests      []*prometheus.CounterVec
	reconnects    prometheus.Counter
	refusedOffers prometheus.Counter
	refusedConns  *prometheus.CounterVec

	diverts      prometheus.Gauge
	divertsBegun prometheus.Counter
	divertsEnded *prometheus.CounterVec
}

// NewMetrics registers the metrics of a server that carries HTTP, TCP or both.
func NewMetrics(reg prometheus.Registerer, http, tcp bool) *Metrics {
	m := &Metrics{connected: make(map[tunnel.Kind]prometheus.Gauge)}
	for kind, carried := range map[tunnel.Kind]bool{tunnel.HTTP: http, tunnel.TCP: tcp} {
		if !carried {
			continue
		}
		gauge := prometheus.NewGauge(prometheus.GaugeOpts{
			Name: string(kind) + "_controlplane_connected_gauge",
			Help: "Clients connected that offer " + strings.ToUpper(string(kind)) + " tunnels.",
		})
		requests := prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: string(kind) + "_controlplane_requests_total",
			Help: "Requests on the control port, of whatever kind of tunnel.",
		}, []string{"code", "path"})
		reg.MustRegister(gauge, requests)
		m.connected[kind] = gauge
		m.requests = append(m.requests, requests)
	}
	m.reconnects = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "culvert_client_reconnects_total",
		Help: "Sessions begun by clients that had lost one before.",
	})
	m.refusedOffers = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "culvert_offers_refused_total",
		Help: "Tunnels that clients offered and were refused.",
	})
	m.refusedConns = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "culvert_controlplane_connections_refused_total",
		Help: "Connections to the control port that were closed before authentication.",
	}, []string{"reason"})
	m.diverts = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "culvert_diverts_gauge", Help: "Diverts of live traffic that are there now.",
	})
	m.divertsBegun = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "culvert_diverts_total", Help: "Diverts of live traffic that have begun.",
	})
	m.divertsEnded = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "culvert_diverts_ended_total",
		Help: "Diverts of live traffic that have ended, by what ended them: time, client, operator, token or server.",
	}, []string{"reason"})
	reg.MustRegister(m.diverts, m.divertsBegun, m.divertsEnded)
	reg.MustRegister(m.reconnects, m.refusedOffers, m.refusedConns)
	return m
}

// count adds a client to the gauges of the kinds that it offers, or takes it away.
func (m *Metrics) count(c *session, delta float64) {
	for kind, gauge := range m.connected {
		for _, offer := range c.hello.Offers {
			if strings.HasPrefix(offer.Tunnel, string(kind)+"/") {
				gauge.Add(delta)
				break
			}
		}
	}
}

func (m *Metrics) divertBegun() {
	m.diverts.Inc()
	m.divertsBegun.Inc()
}

func (m *Metrics) divertEnded(reason string) {
	m.diverts.Dec()
	m.divertsEnded.WithLabelValues(reason).Inc()
}

// CountRequest counts a request on the control port.
func (m *Metrics) CountRequest(path string, code int) {
	path = pathLabel(path)
	for _, requests := range m.requests {
		requests.WithLabelValues(strconv.Itoa(code), path).Inc()
	}
}

// pathLabel bounds what strangers can make a label of.
func pathLabel(path string) string {
	switch path {
	case ws.Path, "/status", "/metrics", "/healthz", "/readyz":
		return path
	}
	if strings.HasPrefix(path, "/readyz/") {
		return "/readyz"
	}
	if strings.HasPrefix(path, "/api/") {
		return "/api"
	}
	return "other"
}

// CountRefused counts a connection that was closed before authentication.
func (m *Metrics) CountRefused(reason string) { m.refusedConns.WithLabelValues(reason).Inc() }
