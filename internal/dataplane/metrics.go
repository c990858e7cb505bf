package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/proxy"
	"culvert/internal/upstream"
	"culvert/internal/upstream/health"
)

// Counters counts what entrypoints, routes and upstreams of the configuration do. Ports that clients open are not among them:
// however many there are, the tcp_dataplane and udp_dataplane metrics have them by port.
type Counters struct {
	entries  proxy.CountsVec
	refused  *prometheus.CounterVec // entrypoint, reason
	routes   *prometheus.CounterVec // entrypoint, route
	connect  *prometheus.HistogramVec
	queued   *prometheus.HistogramVec
	retries  *prometheus.CounterVec
	failures *prometheus.CounterVec // upstream, reason
	ejected  *prometheus.CounterVec // upstream, reason
}

// NewCounters registers the metrics. It panics if one of them is registered already.
func NewCounters(reg prometheus.Registerer) *Counters {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"upstream"})
		reg.MustRegister(v)
		return v
	}
	return &Counters{
		entries: proxy.NewCountsVec(reg),
		refused: counter("culvert_entrypoint_refused_total", "Connections that were closed before they were routed, by reason.", "entrypoint", "reason"),
		routes:  counter("culvert_route_connections_total", "Connections and flows that a route took and a member got.", "entrypoint", "route"),
		connect: histogram("culvert_upstream_connect_seconds", "Time from the choice of a member to its connection."),
		queued:  histogram("culvert_upstream_queue_seconds", "Time that visitors waited for a member with room, of those who waited."),
		retries: counter("culvert_upstream_retries_total", "Members tried after another one had failed.", "upstream"),
		failures: counter("culvert_upstream_failed_total", "Connections to members that were not made, by reason.",
			"upstream", "reason"),
		ejected: counter("culvert_upstream_ejections_total", "Members left out for a while after failures, by the last one's reason.",
			"upstream", "reason"),
	}
}

// took counts what a route takes: for the state, and for the metrics if it is of the configuration, or a divert.
func (e *entry) took(r route) func(*upstream.Dialed) {
	total := e.total(r.Name)
	if _, diverted := divertID(r.Name); !diverted && !e.isOwn() {
		return func(*upstream.Dialed) { total.Add(1) }
	}
	taken, counts := e.plane.cfg.Counters.routes.WithLabelValues(e.plan.Name, r.Name), r.pool.counts
	return func(d *upstream.Dialed) {
		total.Add(1)
		taken.Inc()
		counts.dialed(d)
	}
}

// total is what a route of the name has taken so far.
func (e *entry) total(route string) *atomic.Uint64 {
	n := e.totals[route]
	if n == nil {
		n = new(atomic.Uint64)
		if e.totals == nil {
			e.totals = make(map[string]*atomic.Uint64)
		}
		e.totals[route] = n
	}
	return n
}

func (c *Counters) refuse(entry, reason string) { c.refused.WithLabelValues(entry, reason).Inc() }

func (c *Counters) forgetEntry(name string) {
	label := prometheus.Labels{"entrypoint": name}
	c.entries.Forget(name)
	c.refused.DeletePartialMatch(label)
	c.routes.DeletePartialMatch(label)
}

func (c *Counters) forgetRoute(entry, route string) { c.routes.DeleteLabelValues(entry, route) }

func (c *Counters) forgetPool(name string) {
	label := prometheus.Labels{"upstream": name}
	c.connect.Delete(label)
	c.queued.Delete(label)
	c.retries.Delete(label)
	c.failures.DeletePartialMatch(label)
	c.ejected.DeletePartialMatch(label)
}

// poolCounts counts what one upstream does. A nil *poolCounts counts nothing.
type poolCounts struct {
	name     string
	counters *Counters
	connect  prometheus.Observer
	queued   prometheus.Observer
	retries  prometheus.Counter
}

func (c *Counters) pool(name string) *poolCounts {
	return &poolCounts{
		name: name, counters: c, connect: c.connect.WithLabelValues(name), queued: c.queued.WithLabelValues(name),
		retries: c.retries.WithLabelValues(name),
	}
}

// dialed counts a connection that was made; of a flow, which is nil, it knows nothing.
func (c *poolCounts) dialed(d *upstream.Dialed) {
	if c == nil || d == nil {
		return
	}
	c.connect.Observe(d.Connect.Seconds())
	if d.Queued > 0 {
		c.queued.Observe(d.Queued.Seconds())
	}
	if n := len(d.Tries); n > 0 {
		c.retries.Add(float64(n))
	}
}

func (c *poolCounts) failed(r upstream.Reason) {
	if c != nil {
		c.counters.failures.WithLabelValues(c.name, string(r)).Inc()
	}
}

func (c *poolCounts) ejectedOne(r upstream.Reason) {
	if c != nil {
		c.counters.ejected.WithLabelValues(c.name, string(r)).Inc()
	}
}

// memberCollector gives what is known of each member of the configuration's upstreams when it is asked.
type memberCollector struct{ plane *DataPlane }

var (
	memberLabels = []string{"upstream", "member"}
	memberOpened = prometheus.NewDesc("culvert_member_connections_total", "Connections and flows that the member got.", memberLabels, nil)
	memberOpen   = prometheus.NewDesc("culvert_member_connections", "Connections and flows of the member that are open.", memberLabels, nil)
	memberFailed = prometheus.NewDesc("culvert_member_failed_total", "Connections to the member that were not made.", memberLabels, nil)
	memberUp     = prometheus.NewDesc("culvert_member_up", "Whether the member takes connections: its check succeeds, it is within reach and not draining.", memberLabels, nil)
	memberWeight = prometheus.NewDesc("culvert_member_weight", "The member's share beside the others'.", memberLabels, nil)
	memberLeft   = prometheus.NewDesc("culvert_member_ejected", "Whether the member is left out for a while after failures.", memberLabels, nil)
	memberChecks = prometheus.NewDesc("culvert_member_checks_total", "Checks of the member.", memberLabels, nil)
	memberBad    = prometheus.NewDesc("culvert_member_check_failures_total", "Checks of the member that failed.", memberLabels, nil)
	memberFlaps  = prometheus.NewDesc("culvert_member_check_changes_total", "How often its check has found the member up or down anew.", memberLabels, nil)
	memberTook   = prometheus.NewDesc("culvert_member_check_seconds", "How long the last check of the member took.", memberLabels, nil)
	upstreamWait = prometheus.NewDesc("culvert_upstream_queued", "Visitors that wait for a member with room.", []string{"upstream"}, nil)
)

// Collector gives metrics of members.
func (d *DataPlane) Collector() prometheus.Collector { return memberCollector{d} }

func (c memberCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		memberOpened, memberOpen, memberFailed, memberUp, memberWeight, memberLeft, memberChecks, memberBad, memberFlaps, memberTook, upstreamWait,
	} {
		ch <- d
	}
}

func (c memberCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	for _, p := range c.plane.configured() {
		gauge(upstreamWait, float64(p.upstream.Waiting()), p.name)
		seen := make(map[string]bool)
		for _, s := range p.upstream.Places() {
			if seen[s.Name] { // two clients of one name
				continue
			}
			seen[s.Name] = true
			counter(memberOpened, float64(s.Total), p.name, s.Name)
			gauge(memberOpen, float64(s.Open), p.name, s.Name)
			counter(memberFailed, float64(s.Failed), p.name, s.Name)
			gauge(memberUp, oneIf(s.Usable), p.name, s.Name)
			gauge(memberWeight, float64(s.Weight), p.name, s.Name)
			gauge(memberLeft, oneIf(s.EjectedUntil.After(time.Now())), p.name, s.Name)
			if checker := p.checkers[s.Member]; checker != nil {
				st := checker.Status()
				counter(memberChecks, float64(st.Checks), p.name, s.Name)
				counter(memberBad, float64(st.Failures), p.name, s.Name)
				counter(memberFlaps, float64(st.Changes), p.name, s.Name)
				gauge(memberTook, st.Took.Seconds(), p.name, s.Name)
			}
		}
	}
}

// configured is the upstreams of the configuration, and the checks of their members.
func (d *DataPlane) configured() (list []configuredPool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.filePools {
		list = append(list, configuredPool{p.name, p.upstream, p.checkers()})
	}
	return list
}

type configuredPool struct {
	name     string
	upstream *upstream.Upstream
	checkers map[upstream.Member]*health.Checker
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
