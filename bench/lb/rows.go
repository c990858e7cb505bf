package main

import (
	"context"

	"culvert/bench/load"
	"culvert/bench/report"
	"culvert/bench/systems"
	"culvert/bench/trials"
)

const idleMemory = "KiB an idle connection"

func plan() trials.Plan {
	return trials.Plan{Rows: rows(), Systems: systems.Balancers(), Pairs: pairs(), Gates: gates()}
}

func rows() []trials.Row {
	everyone := []string{systems.Culvert, systems.HAProxy, systems.HAProxyOne, systems.Nginx}
	return []trials.Row{
		{
			Name: "http", Systems: everyone, NeedsWrk: true, Measure: keepalive,
			What: "Small requests by wrk on connections that are kept alive.",
		},
		{
			Name: "conn", Systems: everyone, Measure: trials.Connections,
			What: "Dial, one small request, close, 64 at a time.",
		},
		{
			Name: "bulk", Systems: everyone, Measure: bulk,
			What: "Transfers without end, as visitors see the direction.",
		},
		{
			Name: "idle", Systems: everyone, Rounds: 1, Measure: idle,
			What: "5,000 open connections that say nothing; resident memory and descriptors.",
		},
		{
			Name: "udp", Systems: []string{systems.Culvert, systems.Nginx}, Measure: packets,
			What: "50,000 datagrams of 200 bytes a second from 16 sockets, one way. HAProxy carries none.",
		},
		{
			Name: "dns", Systems: []string{systems.Culvert, systems.Nginx}, Measure: questions,
			What: "3,000 questions a second to dnsmasq, each from a port of its own, with default settings; nginx with proxy_responses 1.",
		},
	}
}

func keepalive(ctx context.Context, t *trials.Trial) error { return trials.Keepalive(ctx, t, 64, 1) }

func bulk(ctx context.Context, t *trials.Trial) error {
	for _, d := range []load.Direction{load.Down, load.Up} {
		for _, streams := range []int{1, 4} {
			if err := trials.Transfer(ctx, t, streams, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func idle(ctx context.Context, t *trials.Trial) error { return trials.Idle(ctx, t, idleMemory) }

// pairs are the ratios of the tables.
func pairs() []report.Pair {
	return []report.Pair{
		{System: systems.Culvert, Over: systems.HAProxy},
		{System: systems.Culvert, Over: systems.HAProxyOne},
		{System: systems.Culvert, Over: systems.Nginx},
	}
}

// gates are what culvert must keep to.
func gates() []report.Gate {
	c, h := systems.Culvert, systems.HAProxy
	return []report.Gate{
		{Name: "CPU a request, 64 connections, of HAProxy's", Quantity: trials.RequestCPU(64), System: c, Over: h, Limit: 1.4},
		{Name: "CPU a new connection, of HAProxy's", Quantity: trials.ConnectionCPU, System: c, Over: h, Limit: 1.6},
		{Name: "CPU a GB, 1 download, of HAProxy's", Quantity: trials.TransferCPU(1, load.Down), System: c, Over: h, Limit: 0.6},
		{Name: "CPU a GB, 1 upload, of HAProxy's", Quantity: trials.TransferCPU(1, load.Up), System: c, Over: h, Limit: 0.6},
		{Name: "CPU a GB, 4 downloads, of HAProxy's", Quantity: trials.TransferCPU(4, load.Down), System: c, Over: h, Limit: 0.6},
		{Name: "CPU a GB, 4 uploads, of HAProxy's", Quantity: trials.TransferCPU(4, load.Up), System: c, Over: h, Limit: 0.6},
		{Name: idleMemory, Quantity: idleMemory, System: c, Limit: 10},
		{Name: trials.IdleDescriptors, Quantity: trials.IdleDescriptors, System: c, Limit: 2.01},
		{Name: packetLoss, Quantity: packetLoss, System: c, Limit: 1},
		{Name: questionLoss, Quantity: questionLoss, System: c, Limit: 1},
		{Name: "CPU a question, of nginx's", Quantity: questionCPU, System: c, Over: systems.Nginx, Limit: 3},
	}
}
