package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"culvert/bench/load"
	"culvert/bench/proc"
	"culvert/bench/trials"
)

const (
	packetRate    = 50_000
	packetSize    = 200
	packetSockets = 16
	packetLoss    = "% of datagrams lost"
	packetCPU     = "CPU µs a datagram"
)

// runPackets is the part that sends: in a process of its own, so that it keeps its pace.
func runPackets(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("packets", flag.ContinueOnError)
	addr := fs.String("addr", "", "host:port")
	rate := fs.Int("rate", packetRate, "datagrams a second")
	during := fs.Duration("during", time.Second, "how long")
	if err := fs.Parse(args); err != nil {
		return err
	}
	n, err := load.SendPackets(ctx, *addr, packetSockets, *rate, packetSize, *during)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, n)
	return err
}

// packets measures how many datagrams of a steady stream arrive.
func packets(ctx context.Context, t *trials.Trial) error {
	before, err := t.Counted("/packets")
	if err != nil {
		return err
	}
	m := t.Meter()
	out, err := proc.Run(ctx, t.Self, "packets", "-addr", t.Visitors(), "-during", t.Bench.During.String())
	if err != nil {
		return err
	}
	sent, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		return err
	}
	if err := trials.Pause(ctx, 200*time.Millisecond); err != nil { // what is under way arrives
		return err
	}
	cpu, _ := m.Stop()
	after, err := t.Counted("/packets")
	if err != nil {
		return err
	}
	arrived := float64(after - before)
	if arrived == 0 {
		return fmt.Errorf("none of %d datagrams arrived", sent)
	}
	t.Note(packetCPU, cpu/arrived*1e6)
	t.Note("datagrams/s", arrived/t.Bench.During.Seconds())
	t.Note(packetLoss, 100*(1-arrived/float64(sent)))
	return nil
}
