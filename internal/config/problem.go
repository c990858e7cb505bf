package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"culvert/internal/config/file"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Flag is the setting's flag, without dashes.
	Flag string
	// Fault says what is wrong, in lower case, as what follows "--flag: ".
	Fault string
	// Remedy says what to type instead; may be empty.
	Remedy string

	variable string     // the environment variable that the value came from, if it did
	place    file.Fault // where it stands in the configuration file, if it came from there
}

func (p Problem) Error() string {
	if p.place.File != "" {
		return p.Place().Error()
	}
	name := p.variable
	if name == "" {
		name = "--" + p.Flag
	}
	if p.Remedy == "" {
		return name + ": " + p.Fault
	}
	return name + ": " + p.Fault + "; " + p.Remedy
}

// Place is the problem as one of the configuration file, which speaks of keys rather than flags. Its File is empty if the
// value came from elsewhere.
func (p Problem) Place() file.Fault {
	f := p.place
	f.Fault, f.Remedy = asKeys(p.Fault), asKeys(p.Remedy)
	return f
}

// ofFlag is a flag in a text, with its value where one follows.
var ofFlag = regexp.MustCompile(`--([a-z][a-z-]*)(=([^\s,;]+)| ([A-Z]+\b))?`)

// asKeys puts keys of the file in the place of the flags in a text.
func asKeys(text string) string {
	return ofFlag.ReplaceAllStringFunc(text, func(flag string) string {
		part := ofFlag.FindStringSubmatch(flag)
		key := strings.ReplaceAll(part[1], "-", "_")
		if value := part[3] + part[4]; value != "" {
			return key + ": " + value
		}
		return key
	})
}

// ofFile is a fault of the configuration file as a problem.
func ofFile(f file.Fault) Problem { return Problem{Fault: f.Fault, Remedy: f.Remedy, place: f} }

// sort puts what concerns the configuration file into its order, behind all else.
func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(a.place.Line-b.place.Line, a.place.Column-b.place.Column)
	})
}

// Problems are all that is wrong with a configuration, in the order of its settings where it has one.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Err is the problems as an error, or nil if there is none.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

func (p *Problems) add(flag, remedy, fault string, args ...any) {
	*p = append(*p, Problem{Flag: flag, Fault: fmt.Sprintf(fault, args...), Remedy: remedy})
}
