package trials

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Settings are what the flags say that all benchmarks have.
type Settings struct {
	Binary  string
	Rows    []string
	Systems []string
	Rounds  int
	During  time.Duration // of each measurement
	JSON    string
}

// Parse reads the flags, besides those that fs has already.
func Parse(fs *flag.FlagSet, p Plan, args []string) (Settings, error) {
	var s Settings
	fs.StringVar(&s.Binary, "culvert", "bin/culvert", "the built program")
	rows := fs.String("rows", "all", "rows to run, a comma list of "+strings.Join(p.rowNames(), ", "))
	names := fs.String("systems", "all", "systems to run, a comma list of "+strings.Join(p.systemNames(), ", "))
	fs.IntVar(&s.Rounds, "rounds", 3, "rounds; rows that are long and steady have fewer")
	seconds := fs.Int("seconds", 2, "how long each measurement lasts")
	fs.StringVar(&s.JSON, "json", "", "file for every single figure, a JSON object a line")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	s.During = time.Duration(*seconds) * time.Second
	if s.Rounds < 1 || *seconds < 1 || fs.NArg() > 0 {
		return s, errors.New("want at least one round and one second, and nothing beside flags")
	}
	var err error
	if s.Rows, err = choose(*rows, p.rowNames()); err != nil {
		return s, err
	}
	if s.Systems, err = choose(*names, p.systemNames()); err != nil {
		return s, err
	}
	s.Binary, err = filepath.Abs(s.Binary)
	return s, err
}

// choose reads a comma list of names, in the order of all.
func choose(list string, all []string) ([]string, error) {
	if list == "all" {
		return all, nil
	}
	asked := strings.Split(list, ",")
	for _, a := range asked {
		if !slices.Contains(all, a) {
			return nil, fmt.Errorf("there is no %q; there are %s", a, strings.Join(all, ", "))
		}
	}
	var chosen []string
	for _, name := range all {
		if slices.Contains(asked, name) {
			chosen = append(chosen, name)
		}
	}
	return chosen, nil
}
