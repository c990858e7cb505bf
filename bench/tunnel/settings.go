package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"culvert/bench/systems"
)

// settings are what the flags say.
type settings struct {
	binary     string
	rows       []string
	systems    []string
	rounds     int
	during     time.Duration // of each measurement
	gonetem    string
	congestion string
	json       string
}

func parse(args []string, errs io.Writer) (settings, error) {
	var s settings
	fs := flag.NewFlagSet("tunnel", flag.ContinueOnError)
	fs.SetOutput(errs)
	fs.StringVar(&s.binary, "culvert", "bin/culvert", "the built program")
	chosen := fs.String("rows", "all", "rows to run, a comma list of "+strings.Join(rowNames(), ", "))
	names := fs.String("systems", "all", "systems to run, a comma list of "+strings.Join(systemNames(), ", "))
	fs.IntVar(&s.rounds, "rounds", 3, "rounds; rows that are long and steady have fewer")
	seconds := fs.Int("seconds", 2, "how long each measurement lasts")
	fs.StringVar(&s.gonetem, "gonetem", os.Getenv("GONETEM"),
		"folder with the source of gonetem, which the row wan needs (GONETEM)")
	fs.StringVar(&s.congestion, "congestion", "cubic", "TCP's congestion control in the row wan")
	fs.StringVar(&s.json, "json", "", "file for every single figure, a JSON object a line")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	s.during = time.Duration(*seconds) * time.Second
	if s.rounds < 1 || *seconds < 1 || fs.NArg() > 0 {
		return s, errors.New("want at least one round and one second, and nothing beside flags")
	}
	var err error
	if s.rows, err = choose(*chosen, rowNames()); err != nil {
		return s, err
	}
	if s.systems, err = choose(*names, systemNames()); err != nil {
		return s, err
	}
	s.binary, err = filepath.Abs(s.binary)
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

func systemNames() []string {
	var names []string
	for _, s := range systems.All() {
		names = append(names, s.Name)
	}
	return names
}
