package main

import (
	"context"
	"time"

	"culvert/bench/systems"
	"culvert/bench/trials"
)

func rows(w *wanSettings) []trials.Row {
	everyone := []string{systems.Culvert, systems.CulvertTLS, systems.SSH, systems.Reference, systems.HAProxy, systems.Nginx}
	tunnels := []string{systems.Culvert, systems.SSH, systems.Reference}
	alone := []string{systems.Culvert}
	return []trials.Row{
		{
			Name: "http", Systems: everyone, NeedsWrk: true, Measure: keepalive,
			What: "Small requests by wrk on connections that are kept alive; CPU is of server and client together.",
		},
		{
			Name: "conn", Systems: []string{systems.Culvert, systems.SSH, systems.Reference, systems.HAProxy, systems.Nginx}, Measure: trials.Connections,
			What: "Dial, one small request, close, 64 at a time.",
		},
		{
			Name: "bulk", Systems: []string{systems.Culvert, systems.CulvertTLS, systems.SSH, systems.Reference, systems.HAProxy}, Measure: bulk,
			What: "Transfers without end, as visitors see the direction.",
		},
		{
			Name: "beside", Systems: []string{systems.Culvert, systems.SSH, systems.Reference, systems.HAProxy}, Measure: beside,
			What: "A small request on an open connection, while another connection through the same client downloads at full speed.",
		},
		{
			Name: "far", Systems: tunnels, Rounds: 2, Way: systems.Long{RTT: 40 * time.Millisecond, Mbit: 200}, Measure: besideFar,
			What: "The same with a relay of 40 ms round trip and 200 Mbit/s between client and server. The relay's queue is 30 ms: 70 ms is the floor.",
		},
		{
			Name: "fat", Systems: tunnels, Rounds: 2, Way: systems.Long{RTT: 40 * time.Millisecond, Mbit: 1000}, Measure: fat,
			What: "One download over a relay of 40 ms and 1 Gbit/s.",
		},
		{
			Name: "idle", Systems: []string{systems.Culvert, systems.Reference, systems.HAProxy}, Rounds: 1, Measure: idle,
			What: "5,000 open connections that say nothing; resident memory of both ends together.",
		},
		{
			Name: "sessions", Systems: alone, Rounds: 1, Measure: sessions,
			What: "200 clients that are connected and say nothing; resident memory of the server.",
		},
		{
			Name: "stalled", Systems: alone, Rounds: 1, Measure: stalled,
			What: "100 visitors of one client stop reading a download, and another one goes on with small requests.",
		},
		{
			Name: "freeze", Systems: alone, Rounds: 1, Measure: freeze,
			What: "One of two clients is stopped by SIGSTOP for 10 s under 400 new connections a second.",
		},
		{
			Name: "wan", Whole: w.wan,
			What: "Downloads between two network namespaces, over IP packets with 100 ms round trip and 200 Mbit/s (gonetem, tbf), from the first byte on.",
		},
	}
}

func keepalive(ctx context.Context, t *trials.Trial) error { return trials.Keepalive(ctx, t, 64, 8, 1) }
