package main

import (
	"flag"
	"io"
	"net"
	"os"

	"culvert/bench/report"
	"culvert/bench/systems"
	"culvert/bench/trials"
)

// parse reads the flags of the benchmark, and says what it is to do.
func parse(args []string, errs io.Writer) (trials.Plan, trials.Settings, error) {
	fs := flag.NewFlagSet("tunnel", flag.ContinueOnError)
	fs.SetOutput(errs)
	var w wanSettings
	fs.StringVar(&w.gonetem, "gonetem", os.Getenv("GONETEM"),
		"folder with the source of gonetem, which the row wan needs (GONETEM)")
	fs.StringVar(&w.congestion, "congestion", "cubic", "TCP's congestion control in the row wan")
	p := plan(&w)
	s, err := trials.Parse(fs, p, args)
	return p, s, err
}

func plan(w *wanSettings) trials.Plan {
	return trials.Plan{
		Rows: rows(w), Systems: systems.Tunnels(), Columns: []string{plainTCP, oneLink, fourLinks}, Pairs: pairs(), Gates: gates(),
		Addresses: []net.IP{net.ParseIP(wanServer)},
	}
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
