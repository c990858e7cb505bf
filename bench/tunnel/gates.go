package main

import (
	"culvert/bench/load"
	"culvert/bench/report"
	"culvert/bench/systems"
	"culvert/bench/trials"
)

// gates are what culvert must keep to.
func gates() []report.Gate {
	c := systems.Culvert
	return []report.Gate{
		{Name: "CPU a request, 64 connections, of HAProxy's", Quantity: trials.RequestCPU(64), System: c, Over: systems.HAProxy, Limit: 2.0},
		{Name: "the same, of ssh -R's", Quantity: trials.RequestCPU(64), System: c, Over: systems.SSH, Limit: 1.0},
		{Name: "the same, of the reference's", Quantity: trials.RequestCPU(64), System: c, Over: systems.Reference, Limit: 0.70},
		{Name: "CPU a request, 1 connection, of the reference's", Quantity: trials.RequestCPU(1), System: c, Over: systems.Reference, Limit: 0.75},
		{Name: "CPU a new connection, of HAProxy's", Quantity: trials.ConnectionCPU, System: c, Over: systems.HAProxy, Limit: 2.2},
		{Name: "CPU a GB, one download over tls://, of ssh -R's", Quantity: trials.TransferCPU(1, load.Down), System: systems.CulvertTLS, Over: systems.SSH, Limit: 1.2},
		{Name: "CPU a GB, one upload over tls://, of ssh -R's", Quantity: trials.TransferCPU(1, load.Up), System: systems.CulvertTLS, Over: systems.SSH, Limit: 1.2},
		{Name: "CPU a GB, one download, wss:// of tls://", Quantity: trials.TransferCPU(1, load.Down), System: c, Over: systems.CulvertTLS, Limit: 1.1},
		{Name: "CPU a GB, one upload, wss:// of tls://", Quantity: trials.TransferCPU(1, load.Up), System: c, Over: systems.CulvertTLS, Limit: 1.1},
		{Name: besideP99, Quantity: besideP99, System: c, Limit: 3},
		{Name: farP99, Quantity: farP99, System: c, Limit: 80},
		{Name: fatRate, Quantity: fatRate, System: c, Limit: 100, AtLeast: true},
		{Name: idleMemory, Quantity: idleMemory, System: c, Limit: 12},
		{Name: clientMemory, Quantity: clientMemory, System: c, Limit: 40},
		{Name: "p99 beside 100 stalled visitors, of that before", Quantity: stalledP99, OverQuantity: stalledBase, System: c, Limit: 2},
		{Name: stalledGrowth, Quantity: stalledGrowth, System: c, Limit: 64},
		{Name: stalledLeft, Quantity: stalledLeft, System: c, Limit: 8},
		{Name: freezeLatest, Quantity: freezeLatest, System: c, Limit: 1},
		{Name: freezeTwice, Quantity: freezeTwice, System: c, Limit: 0},
		{Name: "one stream at 100 ms, 200 Mbit/s, of plain TCP", Quantity: wanOne, System: c, Over: plainTCP, Limit: 0.8, AtLeast: true},
		{Name: "16 streams at 1 % loss, 4 links of 1", Quantity: wanLoss, System: fourLinks, Over: oneLink, Limit: 1.5, AtLeast: true},
	}
}
