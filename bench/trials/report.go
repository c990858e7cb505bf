package trials

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
)

// Report prints what was measured.
func (b *Bench) Report(ctx context.Context, w io.Writer) error {
	version, _ := proc.Run(context.WithoutCancel(ctx), b.Binary, "version")
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Fprintf(w, "%s: %s, %d cores, Linux %s, %s. Medians of up to %d rounds of %s; ratios are medians of each round's.\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), strings.Join(strings.Split(strings.TrimSpace(version), "\n"), ", "),
		runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.GOARCH, b.Rounds, b.During)
	columns := append(b.plan.systemNames(), b.plan.Columns...)
	measured := b.samples.Rows()
	for _, r := range b.plan.Rows {
		if !slices.Contains(measured, r.Name) {
			continue
		}
		fmt.Fprintf(w, "\n%s %s\n", r.What, b.othersIn(r.Name))
		b.samples.Table(w, r.Name, columns, b.plan.Pairs)
	}
	broken := b.samples.Gates(w, b.plan.Gates)
	if broken > 0 {
		fmt.Fprintf(w, "\n%d gates do not hold.\n", broken)
	}
	for _, l := range b.lacking {
		fmt.Fprintf(w, "\nLeft out: %s.\n", l)
	}
	return b.writeJSON()
}

// othersIn says how busy others kept the machine during a row.
func (b *Bench) othersIn(row string) string {
	cores := slices.Clone(b.others[row])
	if len(cores) == 0 {
		return ""
	}
	slices.Sort(cores)
	return fmt.Sprintf("Others used %.2f cores meanwhile (median; at most %.2f).", cores[len(cores)/2], cores[len(cores)-1])
}

func (b *Bench) writeJSON() error {
	if b.JSON == "" {
		return nil
	}
	f, err := os.Create(b.JSON)
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
