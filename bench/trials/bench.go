// Package trials runs a benchmark: systems one after the other, in rounds, each row of them measured as whole processes.
//
// CPU is that of a system's own processes; the load and the service are processes apart. A system that fails is left
// out and named, and so is one whose parts this machine has not.
package trials

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

// Plan is what a benchmark consists of.
type Plan struct {
	Rows    []Row
	Systems []systems.System
	Columns []string // of the tables, besides the systems
	Pairs   []report.Pair
	Gates   []report.Gate
	// Addresses are those for which the systems' certificate is, besides loopback.
	Addresses []net.IP
}

// Row is one thing that is measured.
type Row struct {
	Name     string
	What     string // a sentence for the report
	Systems  []string
	Rounds   int // at most; 0 for as many as asked
	NeedsWrk bool
	Way      systems.Long
	Measure  func(context.Context, *Trial) error
	// Whole runs a row that is not made of systems on loopback; Measure is nil then.
	Whole func(context.Context, *Bench) error
}

func (p Plan) rowNames() []string {
	var names []string
	for _, r := range p.Rows {
		names = append(names, r.Name)
	}
	return names
}

func (p Plan) systemNames() []string {
	var names []string
	for _, s := range p.Systems {
		names = append(names, s.Name)
	}
	return names
}

// Bench is one run of a benchmark. Close must be called.
type Bench struct {
	Settings
	Self string // this program
	Dir  string // everything is written here

	plan    Plan
	errs    io.Writer // progress
	keys    systems.Keys
	service *proc.Process
	at      string // of the service
	samples report.Samples
	others  map[string][]float64 // of a row: cores that others used, in each measurement
	lacking []string             // what was left out, and why
	runs    int
}

// New makes ready: it installs what is missing, if it may, and starts the service, which is this program with the
// arguments service -listen ADDR.
func New(ctx context.Context, p Plan, s Settings, errs io.Writer) (*Bench, error) {
	if _, err := os.Stat(s.Binary); err != nil {
		return nil, fmt.Errorf("culvert is not built: %w", err)
	}
	b := &Bench{Settings: s, plan: p, errs: errs, others: map[string][]float64{}}
	if err := systems.Install(ctx, func(what string) { b.Say("%s", what) }); err != nil {
		b.Say("%v", err) // what is missing is named later
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
	if b.Self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.Dir, err = os.MkdirTemp("", "culvert-bench-"); err != nil {
		return nil, err
	}
	if b.Binary, err = b.copyBinary(); err != nil {
		b.Close()
		return nil, err
	}
	if b.keys, err = systems.NewKeys(b.Dir, append([]net.IP{net.IPv4(127, 0, 0, 1)}, p.Addresses...)...); err == nil {
		err = b.startService(ctx)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// copyBinary keeps the program as it is now: it may be built again meanwhile.
func (b *Bench) copyBinary() (string, error) {
	path := filepath.Join(b.Dir, "culvert")
	program, err := os.ReadFile(b.Binary)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, program, 0o755)
}

func (b *Bench) startService(ctx context.Context) error {
	port, err := systems.FreePort()
	if err != nil {
		return err
	}
	b.at = "127.0.0.1:" + port
	b.service, err = proc.Start(proc.Spec{
		Role: "service", Argv: []string{b.Self, "service", "-listen", b.at}, Dir: b.Dir, Log: filepath.Join(b.Dir, "service.log"),
	})
	if err != nil {
		return err
	}
	r := systems.Running{System: systems.System{Name: "service"}, Servers: []*proc.Process{b.service}}
	return r.Ready(ctx, b.at)
}

// Close ends the service and removes all files.
func (b *Bench) Close() {
	if b.service != nil {
		b.service.Stop()
	}
	_ = os.RemoveAll(b.Dir) // a folder of temporary files
}

// Say tells of progress.
func (b *Bench) Say(format string, args ...any) {
	fmt.Fprintf(b.errs, time.Now().UTC().Format("15:04:05 ")+format+"\n", args...)
}

// Lack notes what is left out, once.
func (b *Bench) Lack(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if !slices.Contains(b.lacking, what) {
		b.lacking = append(b.lacking, what)
		b.Say("left out: %s", what)
	}
}

// Run runs the chosen rows. Only the end of the context is an error: what fails is left out and named.
func (b *Bench) Run(ctx context.Context) error {
	for _, r := range b.plan.Rows {
		if !slices.Contains(b.Rows, r.Name) {
			continue
		}
		if r.NeedsWrk && !systems.Found("wrk") {
			b.Lack("%s: wrk is missing", r.Name)
			continue
		}
		if r.Whole != nil {
			if err := r.Whole(ctx, b); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				b.Lack("%s: %v", r.Name, err)
			}
			continue
		}
		rounds := b.Rounds
		if r.Rounds > 0 {
			rounds = min(rounds, r.Rounds)
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
func (b *Bench) round(ctx context.Context, r Row, round int) error {
	names := slices.Clone(r.Systems)
	if round%2 == 1 {
		slices.Reverse(names)
	}
	for _, name := range names {
		if !slices.Contains(b.Systems, name) {
			continue
		}
		s, err := b.plan.find(name)
		if err != nil {
			return err
		}
		if missing := s.Missing(); missing != "" {
			b.Lack("%s: %s is missing", name, missing)
			continue
		}
		if err := b.trial(ctx, r, s, round); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.Lack("%s of %s: %v", r.Name, name, err)
		}
	}
	return nil
}

func (p Plan) find(system string) (systems.System, error) {
	for _, s := range p.Systems {
		if s.Name == system {
			return s, nil
		}
	}
	return systems.System{}, fmt.Errorf("unknown system %q", system)
}

// trial runs one system for one row.
func (b *Bench) trial(ctx context.Context, r Row, s systems.System, round int) error {
	p, err := b.Place()
	if err != nil {
		return err
	}
	running, err := systems.StartIn(ctx, s, p, r.Way)
	if err != nil {
		return err
	}
	defer running.Stop()
	if err := running.Ready(ctx, p.PublicAt()); err != nil {
		return err
	}
	if err := r.Measure(ctx, b.Trial(running, r.Name, round)); err != nil {
		return fmt.Errorf("%w (%s)", err, running.LastWords())
	}
	return nil
}

// Place is a new place on loopback.
func (b *Bench) Place() (systems.Place, error) {
	b.runs++
	p := systems.Place{Binary: b.Binary, Self: b.Self, Keys: b.keys, Host: "127.0.0.1", Service: b.at}
	p.Dir = filepath.Join(b.Dir, fmt.Sprintf("run-%d", b.runs))
	var errs [4]error
	errs[0] = os.Mkdir(p.Dir, 0o755)
	p.Public, errs[1] = systems.FreePort()
	p.Tunnel, errs[2] = systems.FreePort()
	names, err := systems.FreePort()
	p.Names, errs[3] = "127.0.0.1:"+names, err
	return p, errors.Join(errs[:]...)
}

// Trial is one system that runs for one round of a row.
type Trial struct {
	*systems.Running
	Bench *Bench

	row   string
	round int
}

// Trial makes a trial of a system that runs.
func (b *Bench) Trial(r *systems.Running, row string, round int) *Trial {
	return &Trial{Running: r, Bench: b, row: row, round: round}
}

// Note keeps a figure.
func (t *Trial) Note(quantity string, value float64) {
	t.Bench.samples.Add(report.Sample{Row: t.row, Quantity: quantity, System: t.Name, Round: t.round, Value: value})
	t.Bench.Say("%-9s %d  %-16s %-60s %10.4g", t.row, t.round, t.Name, quantity, value)
}

// Visitors is where visitors of the system connect.
func (t *Trial) Visitors() string { return t.PublicAt() }

// Counted is how many the service has counted so far of what a path is about.
func (t *Trial) Counted(path string) (int64, error) { return load.Number(t.Bench.at, path) }

// Pause waits for a time to pass.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
