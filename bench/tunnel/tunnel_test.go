package main

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/bench/load"
	"culvert/bench/report"
	"culvert/bench/trials"
)

func TestFlags(t *testing.T) {
	_, s, err := parse([]string{"-rows", "conn,http", "-systems", "ssh -R", "-rounds", "5", "-seconds", "3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Rows, []string{"http", "conn"}) || !slices.Equal(s.Systems, []string{"ssh -R"}) || s.Rounds != 5 || s.During != 3*time.Second {
		t.Errorf("got %+v", s)
	}
	for _, args := range [][]string{{"-rounds", "0"}, {"-seconds", "0"}, {"-rows", "none"}, {"more"}} {
		if _, _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestJudge(t *testing.T) {
	fail := errors.New("no")
	s := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	outcomes := []load.Outcome{
		{Began: s(1), Ended: s(1.1)},
		{Began: s(1.2), Ended: s(1.3), Err: fail},
		{Began: s(1.9), Ended: s(2.5)},            // began before the stop and went well
		{Began: s(1.95), Ended: s(6), Err: fail},  // began before the stop and failed after it
		{Began: s(2.25), Ended: s(7), Err: fail},  // the latest
		{Began: s(2.1), Ended: s(7.1), Err: fail}, // failed later, but began before it
		{Began: s(5), Ended: s(5.2)},
		{Began: s(12.5), Ended: s(12.6), Err: fail},
	}
	want := frozenFigures{before: 1, failed: 3, woken: 1, good: 2, latest: s(0.25), times: load.Times{s(0.6), s(0.2)}}
	got := judge(outcomes, s(2), s(12))
	for i := range got.times {
		got.times[i] = got.times[i].Round(time.Millisecond)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(frozenFigures{})); diff != "" {
		t.Errorf("difference (-want +got):\n%s", diff)
	}
}

// TestGatesNameWhatRowsMeasure keeps a gate from passing because nobody measures its quantity under that name.
func TestGatesNameWhatRowsMeasure(t *testing.T) {
	measured := []string{
		trials.RequestCPU(64), trials.RequestCPU(1), trials.ConnectionCPU, trials.TransferCPU(1, load.Down), trials.TransferCPU(1, load.Up), besideP99, farP99, fatRate,
		idleMemory, clientMemory, stalledBase, stalledP99, stalledGrowth, stalledLeft, freezeLatest, freezeTwice, wanOne, wanLoss,
	}
	for _, g := range gates() {
		for _, q := range []string{g.Quantity, g.OverQuantity} {
			if q != "" && !slices.Contains(measured, q) {
				t.Errorf("gate %q: nobody measures %q", g.Name, q)
			}
		}
		if g.Over != "" && !slices.Contains(pairs(), report.Pair{System: g.System, Over: g.Over}) {
			t.Errorf("gate %q: the tables do not show %s / %s", g.Name, g.System, g.Over)
		}
	}
}
