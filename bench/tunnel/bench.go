package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"culvert/bench/load"
	"culvert/bench/proc"
	"culvert/bench/report"
	"culvert/bench/systems"
)

// bench is one run of the benchmark. close must be called.
type bench struct {
	settings
	errs    io.Writer // progress
	dir     string    // everything is written here
	self    string
	keys    systems.Keys
	service *proc.Process
	at      string // of the service
	samples report.Samples
	others  map[string][]float64 // of a row: cores that others used, in each measurement
	lacking []string             // what was left out, and why
	runs    int
}

func newBench(ctx context.Context, s settings, errs io.Writer) (*bench, error) {
	if _, err := os.Stat(s.binary); err != nil {
		return nil, fmt.Errorf("culvert is not built: %w", err)
	}
	b := &bench{settings: s, errs: errs, others: map[string][]float64{}}
	if err := systems.Install(ctx, func(what string) { b.say("%s", what) }); err != nil {
		b.say("%v", err) // what is missing is named later
	}
	// Set, it counts for all children too. Every descriptor that a row needs is well below.
	most := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &most); err != nil {
		return nil, err
	}
	most.Cur = most.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &most); err != nil {
		return nil, err
	}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "culvert-bench-"); err != nil {
		return nil, err
	}
	if b.binary, err = b.copyBinary(); err != nil {
		b.close()
		return nil, err
	}
	if b.keys, err = systems.NewKeys(b.dir, net.IPv4(127, 0, 0, 1), net.ParseIP(wanServer)); err == nil {
		err = b.startService(ctx)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// copyBinary keeps the program as it is now: it may be built again meanwhile.
func (b *bench) copyBinary() (string, error) {
	path := filepath.Join(b.dir, "culvert")
	program, err := os.ReadFile(b.binary)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, program, 0o755)
}

func (b *bench) startService(ctx context.Context) error {
	port, err := systems.FreePort()
	if err != nil {
		return err
	}
	b.at = "127.0.0.1:" + port
	b.service, err = proc.Start(proc.Spec{
		Role: "service", Argv: []string{b.self, "service", "-listen", b.at}, Dir: b.dir, Log: filepath.Join(b.dir, "service.log"),
	})
	if err != nil {
		return err
	}
	r := systems.Running{System: systems.System{Name: "service"}, Servers: []*proc.Process{b.service}}
	return r.Ready(ctx, b.at)
}

func (b *bench) close() {
	if b.service != nil {
		b.service.Stop()
	}
	_ = os.RemoveAll(b.dir) // a folder of temporary files
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.errs, time.Now().UTC().Format("15:04:05 ")+format+"\n", args...)
}

// lack notes what is left out, once.
func (b *bench) lack(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if !slices.Contains(b.lacking, what) {
		b.lacking = append(b.lacking, what)
		b.say("left out: %s", what)
	}
}

// run runs the chosen rows. Only the end of the context is an error: what fails is left out and named.
func (b *bench) run(ctx context.Context) error {
	for _, r := range rows() {
		if !slices.Contains(b.rows, r.name) {
			continue
		}
		if r.needsWrk && !systems.Found("wrk") {
			b.lack("%s: wrk is missing", r.name)
			continue
		}
		if r.whole != nil {
			if err := r.whole(ctx, b); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				b.lack("%s: %v", r.name, err)
			}
			continue
		}
		rounds := b.rounds
		if r.rounds > 0 {
			rounds = min(rounds, r.rounds)
		}
		for round := range rounds {
			if err := b.round(ctx, r, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// round runs each of a row's systems once.
func (b *bench) round(ctx context.Context, r row, round int) error {
	names := slices.Clone(r.systems)
	if round%2 == 1 {
		slices.Reverse(names)
	}
	for _, name := range names {
		if !slices.Contains(b.systems, name) {
			continue
		}
		s, err := systems.Find(name)
		if err != nil {
			return err
		}
		if missing := s.Missing(); missing != "" {
			b.lack("%s: %s is missing", name, missing)
			continue
		}
		if err := b.trial(ctx, r, s, round); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.lack("%s of %s: %v", r.name, name, err)
		}
	}
	return nil
}

// trial runs one system for one row.
func (b *bench) trial(ctx context.Context, r row, s systems.System, round int) error {
	p, err := b.place()
	if err != nil {
		return err
	}
	running, err := systems.StartIn(ctx, s, p, r.way)
	if err != nil {
		return err
	}
	defer running.Stop()
	if err := running.Ready(ctx, p.PublicAt()); err != nil {
		return err
	}
	t := &trial{Running: running, bench: b, row: r.name, round: round}
	if err := r.measure(ctx, t); err != nil {
		return fmt.Errorf("%w (%s)", err, running.LastWords())
	}
	return nil
}

// place is a new place on loopback.
func (b *bench) place() (systems.Place, error) {
	b.runs++
	p := systems.Place{Binary: b.binary, Self: b.self, Keys: b.keys, Host: "127.0.0.1", Service: b.at}
	p.Dir = filepath.Join(b.dir, fmt.Sprintf("run-%d", b.runs))
	var errs [3]error
	errs[0] = os.Mkdir(p.Dir, 0o755)
	p.Public, errs[1] = systems.FreePort()
	p.Tunnel, errs[2] = systems.FreePort()
	return p, errors.Join(errs[:]...)
}

// trial is one system that runs for one round of a row.
type trial struct {
	*systems.Running
	bench *bench
	row   string
	round int
}

// note keeps a figure.
func (t *trial) note(quantity string, value float64) {
	t.bench.samples.Add(report.Sample{Row: t.row, Quantity: quantity, System: t.Name, Round: t.round, Value: value})
	t.bench.say("%-9s %d  %-16s %-60s %10.4g", t.row, t.round, t.Name, quantity, value)
}

// visitors is where visitors of the system connect.
func (t *trial) visitors() string { return t.PublicAt() }

// uploaded is how many bytes the service has received.
func (t *trial) uploaded() (int64, error) { return load.Number(t.bench.at, "/counted") }
