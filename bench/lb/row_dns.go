package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"culvert/bench/load"
	"culvert/bench/proc"
	"culvert/bench/systems"
	"culvert/bench/trials"
)

const (
	questionRate = 3_000
	questionLoss = "% of questions without an answer"
	questionCPU  = "CPU µs a question"
)

// runQuestions is the part that asks: in a process of its own, as runPackets.
func runQuestions(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("questions", flag.ContinueOnError)
	addr := fs.String("addr", "", "host:port")
	name := fs.String("name", "", "what is asked for")
	rate := fs.Int("rate", questionRate, "questions a second")
	during := fs.Duration("during", time.Second, "how long")
	if err := fs.Parse(args); err != nil {
		return err
	}
	q, err := load.AskNames(ctx, *addr, *name, *rate, *during)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(q)
}

const nameAsked = "bench"

// startNames starts a server of names, where the systems of this trial lead what comes to the tunnel's port.
func startNames(ctx context.Context, t *trials.Trial) (*proc.Process, error) {
	_, port, err := net.SplitHostPort(t.Names)
	if err != nil {
		return nil, err
	}
	argv, err := systems.NamesServer(port, nameAsked)
	if err != nil {
		return nil, err
	}
	names, err := proc.Start(proc.Spec{Role: "names", Argv: argv, Dir: t.Dir, Log: t.Path("names.log")})
	if err != nil {
		return nil, err
	}
	for range 100 {
		if q, err := load.AskNames(ctx, t.Names, nameAsked, 10, 100*time.Millisecond); err != nil || q.Answered > 0 {
			return names, err
		}
	}
	names.Stop()
	return nil, errors.New("the server of names answers nothing")
}

// questions measures a service that gets one question from each port. Three times as long as others: with a table of flows,
// the first seconds fill it.
func questions(ctx context.Context, t *trials.Trial) error {
	names, err := startNames(ctx, t)
	if err != nil {
		return err
	}
	defer names.Stop()
	m := t.Meter()
	out, err := proc.Run(ctx, t.Self, "questions", "-addr", t.TunnelAt(), "-name", nameAsked, "-during", (3 * t.Bench.During).String())
	if err != nil {
		return err
	}
	cpu, _ := m.Stop()
	var q load.Questions
	if err := json.Unmarshal([]byte(out), &q); err != nil {
		return err
	}
	if q.Answered == 0 {
		return fmt.Errorf("none of %d questions was answered", q.Asked)
	}
	t.Note(questionCPU, cpu/float64(q.Answered)*1e6)
	t.Note(questionLoss, 100*(1-float64(q.Answered)/float64(q.Asked)))
	t.Note("question p50 ms", q.P50.Seconds()*1e3)
	t.Note("question p99 ms", q.P99.Seconds()*1e3)
	return nil
}
