package control

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/mux"
)

// collector reads the sessions' own counters when it is asked. A session's series end with it, so there are as many as
// clients are connected.
type collector struct{ server *Server }

var _ prometheus.Collector = collector{}

// sessionDesc is a series of a session, and how it is read.
type sessionDesc struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(mux.Stats) float64
	extra []string
}

func sessionDescs() []sessionDesc {
	labels := []string{"client", "instance"}
	one := func(name, help string, kind prometheus.ValueType, value func(mux.Stats) float64) sessionDesc {
		return sessionDesc{prometheus.NewDesc("culvert_session_"+name, help, labels, nil), kind, value, nil}
	}
	bytes := prometheus.NewDesc("culvert_session_bytes_total",
		"Bytes that the client's connections have carried, framing included.", append(labels, "direction"), nil)
	return []sessionDesc{
		one("links", "Connections of the client in use; 0 while it is out of reach.", prometheus.GaugeValue,
			func(s mux.Stats) float64 { return float64(len(s.Links)) }),
		one("streams", "Open connections of visitors, and the control stream.", prometheus.GaugeValue,
			func(s mux.Stats) float64 { return float64(s.Streams) }),
		one("rtt_seconds", "Round-trip time of the client's fastest connection, last measured.", prometheus.GaugeValue,
			func(s mux.Stats) float64 { return s.RTT().Seconds() }),
		one("resumes_total", "Losses of connections that the client's streams have survived.", prometheus.CounterValue,
			func(s mux.Stats) float64 { return float64(s.Resumes) }),
		one("pauses_total", "Times that the client was out of reach.", prometheus.CounterValue,
			func(s mux.Stats) float64 { return float64(s.Pauses) }),
		one("retransmitted_bytes_total", "Bytes sent again after the loss of a connection.", prometheus.CounterValue,
			func(s mux.Stats) float64 { return float64(s.Retransmitted) }),
		one("window_limited_seconds_total", "Time that streams to the client waited for its readers, added up.", prometheus.CounterValue,
			func(s mux.Stats) float64 { return s.WindowLimited.Seconds() }),
		one("memory_bytes", "Memory of data on its way to and from the client.", prometheus.GaugeValue,
			func(s mux.Stats) float64 { return float64(s.Held) }),
		{bytes, prometheus.CounterValue, func(s mux.Stats) float64 { return float64(s.In) }, []string{"in"}},
		{bytes, prometheus.CounterValue, func(s mux.Stats) float64 { return float64(s.Out) }, []string{"out"}},
	}
}

// linkDescs are the series of each of a session's links, by their place from 0: the numbers of links grow for ever.
func linkDescs() (rtt, bytes *prometheus.Desc) {
	labels := []string{"client", "instance", "link"}
	return prometheus.NewDesc("culvert_link_rtt_seconds", "Round-trip time of one connection of a client, last measured.", labels, nil),
		prometheus.NewDesc("culvert_link_bytes_total", "Bytes that one connection of a client has carried.", append(labels, "direction"), nil)
}

// Describe implements prometheus.Collector. It names nothing beforehand: the series come and go with the clients.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	descs := sessionDescs()
	rtt, bytes := linkDescs()
	seen := make(map[[2]string]bool) // of two credentials both may be the same
	for _, s := range c.server.list() {
		names := []string{s.hello.ID, s.hello.Instance}
		if seen[[2]string(names)] {
			continue
		}
		seen[[2]string(names)] = true
		stats := s.tunnel.Stats()
		for _, d := range descs {
			out <- prometheus.MustNewConstMetric(d.desc, d.kind, d.value(stats), append(names, d.extra...)...)
		}
		for i, l := range stats.Links {
			at := append(names, strconv.Itoa(i))
			out <- prometheus.MustNewConstMetric(rtt, prometheus.GaugeValue, l.RTT.Seconds(), at...)
			out <- prometheus.MustNewConstMetric(bytes, prometheus.CounterValue, float64(l.In), append(at, "in")...)
			out <- prometheus.MustNewConstMetric(bytes, prometheus.CounterValue, float64(l.Out), append(at, "out")...)
		}
	}
}

// Collector gives the metrics of the sessions, to be registered.
func (s *Server) Collector() prometheus.Collector { return collector{s} }
