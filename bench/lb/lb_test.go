package main

import (
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/report"
	"culvert/bench/systems"
	"culvert/bench/trials"
)

func TestFlags(t *testing.T) {
	s, err := parse([]string{"-rows", "conn,http", "-systems", "nginx", "-rounds", "5", "-seconds", "3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Rows, []string{"http", "conn"}) || !slices.Equal(s.Systems, []string{systems.Nginx}) || s.Rounds != 5 || s.During != 3*time.Second {
		t.Errorf("got %+v", s)
	}
	for _, args := range [][]string{{"-rounds", "0"}, {"-seconds", "0"}, {"-rows", "none"}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

// TestGatesNameWhatRowsMeasure keeps a gate from passing because nobody measures its quantity under that name.
func TestGatesNameWhatRowsMeasure(t *testing.T) {
	measured := []string{trials.RequestCPU(64), trials.RequestCPU(1), trials.ConnectionCPU, idleMemory, trials.IdleDescriptors, packetLoss, packetCPU, questionLoss, questionCPU}
	for _, d := range []load.Direction{load.Down, load.Up} {
		measured = append(measured, trials.TransferCPU(1, d), trials.TransferCPU(4, d))
	}
	for _, g := range gates() {
		if !slices.Contains(measured, g.Quantity) {
			t.Errorf("gate %q: nobody measures %q", g.Name, g.Quantity)
		}
		if g.Over != "" && !slices.Contains(pairs(), report.Pair{System: g.System, Over: g.Over}) {
			t.Errorf("gate %q: the tables do not show %s / %s", g.Name, g.System, g.Over)
		}
	}
}

func TestRowsNameSystems(t *testing.T) {
	for _, r := range rows() {
		for _, name := range r.Systems {
			if !slices.ContainsFunc(systems.Balancers(), func(s systems.System) bool { return s.Name == name }) {
				t.Errorf("row %s: there is no system %q", r.Name, name)
			}
		}
	}
}

func TestPacketsAreSentAtTheirRate(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out strings.Builder
	done := make(chan error, 1)
	go func() {
		done <- run(t.Context(), []string{"packets", "-addr", c.LocalAddr().String(), "-rate", "1000", "-during", "50ms"}, &out, io.Discard)
	}()
	for i := range 50 {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, _, err := c.ReadFrom(make([]byte, 1000)); n != packetSize || err != nil {
			t.Fatalf("datagram %d has %d bytes, %v", i, n, err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(out.String())); err != nil || n != 50 {
		t.Errorf("sent %q, %v, want 50", out.String(), err)
	}
}
