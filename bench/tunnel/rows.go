package main

import (
	"context"
	"time"

	"culvert/bench/systems"
)

// row is one thing that is measured.
type row struct {
	name     string
	what     string // a sentence for the report
	systems  []string
	rounds   int // at most; 0 for as many as asked
	needsWrk bool
	way      systems.Long
	measure  func(context.Context, *trial) error
	// whole runs a row that is not made of systems on loopback; measure is nil then.
	whole func(context.Context, *bench) error
}

func rows() []row {
	everyone := []string{systems.Culvert, systems.CulvertTLS, systems.SSH, systems.Reference, systems.HAProxy, systems.Nginx}
	tunnels := []string{systems.Culvert, systems.SSH, systems.Reference}
	alone := []string{systems.Culvert}
	return []row{
		{
			name: "http", systems: everyone, needsWrk: true, measure: keepalive,
			what: "Small requests by wrk on connections that are kept alive; CPU is of server and client together.",
		},
		{
			name: "conn", systems: []string{systems.Culvert, systems.SSH, systems.Reference, systems.HAProxy, systems.Nginx}, measure: connections,
			what: "Dial, one small request, close, 64 at a time.",
		},
		{
			name: "bulk", systems: []string{systems.Culvert, systems.CulvertTLS, systems.SSH, systems.Reference, systems.HAProxy}, measure: bulk,
			what: "Transfers without end, as visitors see the direction.",
		},
		{
			name: "beside", systems: []string{systems.Culvert, systems.SSH, systems.Reference, systems.HAProxy}, measure: beside,
			what: "A small request on an open connection, while another connection through the same client downloads at full speed.",
		},
		{
			name: "far", systems: tunnels, rounds: 2, way: systems.Long{RTT: 40 * time.Millisecond, Mbit: 200}, measure: besideFar,
			what: "The same with a relay of 40 ms round trip and 200 Mbit/s between client and server. The relay's queue is 30 ms: 70 ms is the floor.",
		},
		{
			name: "fat", systems: tunnels, rounds: 2, way: systems.Long{RTT: 40 * time.Millisecond, Mbit: 1000}, measure: fat,
			what: "One download over a relay of 40 ms and 1 Gbit/s.",
		},
		{
			name: "idle", systems: []string{systems.Culvert, systems.Reference, systems.HAProxy}, rounds: 1, measure: idle,
			what: "5,000 open connections that say nothing; resident memory of both ends together.",
		},
		{
			name: "sessions", systems: alone, rounds: 1, measure: sessions,
			what: "200 clients that are connected and say nothing; resident memory of the server.",
		},
		{
			name: "stalled", systems: alone, rounds: 1, measure: stalled,
			what: "100 visitors of one client stop reading a download, and another one goes on with small requests.",
		},
		{
			name: "freeze", systems: alone, rounds: 1, measure: freeze,
			what: "One of two clients is stopped by SIGSTOP for 10 s under 400 new connections a second.",
		},
		{
			name: "wan", whole: wan,
			what: "Downloads between two network namespaces, over IP packets with 100 ms round trip and 200 Mbit/s (gonetem, tbf), from the first byte on.",
		},
	}
}

func rowNames() []string {
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	return names
}
