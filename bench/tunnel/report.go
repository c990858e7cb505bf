package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"culvert/bench/proc"
	"culvert/bench/report"
	"culvert/bench/systems"
)

// report prints what was measured.
func (b *bench) report(ctx context.Context, w io.Writer) error {
	version, _ := proc.Run(context.WithoutCancel(ctx), b.binary, "version")
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Fprintf(w, "%s: %s, %d cores, Linux %s, %s. Medians of up to %d rounds of %s; ratios are medians of each round's.\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), strings.Join(strings.Split(strings.TrimSpace(version), "\n"), ", "),
		runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.GOARCH, b.rounds, b.during)
	columns := append(systemNames(), plainTCP, oneLink, fourLinks)
	measured := b.samples.Rows()
	for _, r := range rows() {
		if !slices.Contains(measured, r.name) {
			continue
		}
		fmt.Fprintf(w, "\n%s %s\n", r.what, b.othersIn(r.name))
		b.samples.Table(w, r.name, columns, pairs())
	}
	broken := b.samples.Gates(w, gates())
	if broken > 0 {
		fmt.Fprintf(w, "\n%d gates do not hold.\n", broken)
	}
	for _, l := range b.lacking {
		fmt.Fprintf(w, "\nLeft out: %s.\n", l)
	}
	return b.writeJSON()
}

// pairs are the ratios of the tables.
func pairs() []report.Pair {
	return []report.Pair{
		{System: systems.Culvert, Over: systems.HAProxy},
		{System: systems.Culvert, Over: systems.SSH},
		{System: systems.Culvert, Over: systems.Reference},
		{System: systems.CulvertTLS, Over: systems.SSH},
		{System: systems.Culvert, Over: systems.CulvertTLS},
		{System: systems.Culvert, Over: plainTCP},
		{System: fourLinks, Over: oneLink},
	}
}

// othersIn says how busy others kept the machine during a row.
func (b *bench) othersIn(row string) string {
	cores := slices.Clone(b.others[row])
	if len(cores) == 0 {
		return ""
	}
	slices.Sort(cores)
	return fmt.Sprintf("Others used %.2f cores meanwhile (median; at most %.2f).", cores[len(cores)/2], cores[len(cores)-1])
}

func (b *bench) writeJSON() error {
	if b.json == "" {
		return nil
	}
	f, err := os.Create(b.json)
	if err != nil {
		return err
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	for _, s := range b.samples.All() {
		if err := enc.Encode(s); err != nil {
			return err
		}
	}
	return f.Close()
}
