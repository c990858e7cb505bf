package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Flag is the setting's flag, without dashes.
	Flag string
	// Fault says what is wrong, in lower case, as what follows "--flag: ".
	Fault string
	// Remedy says what to type instead; may be empty.
	Remedy string

	source string // where the value came from, if not from the flag: "CULVERT_SERVER_PORT"
}

func (p Problem) Error() string {
	name := p.source
	if name == "" {
		name = "--" + p.Flag
	}
	if p.Remedy == "" {
		return name + ": " + p.Fault
	}
	return name + ": " + p.Fault + "; " + p.Remedy
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
