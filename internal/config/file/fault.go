package file

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fault is one thing that is wrong with a file.
type Fault struct {
	File string
	Position
	// Path is the value that it concerns, as in "upstreams[0].balance"; empty for the whole file.
	Path string
	// Fault says what is wrong, in lower case.
	Fault string
	// Remedy says what to write instead; may be empty.
	Remedy string
}

// Place is the file and, where there is one, line, column and path: "culvert.yaml:3:14: upstreams[0].balance".
func (f Fault) Place() string {
	s := f.File
	if f.Line > 0 {
		s += ":" + strconv.Itoa(f.Line) + ":" + strconv.Itoa(f.Column)
	}
	if f.Path != "" {
		s += ": " + f.Path
	}
	return s
}

func (f Fault) Error() string {
	s := f.Place() + ": " + f.Fault
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return s
}

// Faults are all that is wrong with a file, in its order.
type Faults []Fault

// Error has one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// maxFaults is how many faults are told: more help nobody.
const maxFaults = 50

// Err is the faults as an error, in the order of the file and not too many; nil if there is none.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	f.Sort()
	if more := len(f) - maxFaults; more > 0 {
		next := f[maxFaults]
		next.Path, next.Fault, next.Remedy = "", fmt.Sprintf("%d more faults from here on", more), "mend those above first"
		f = append(f[:maxFaults:maxFaults], next)
	}
	return f
}

// Sort puts faults into the order of the file.
func (f Faults) Sort() {
	slices.SortStableFunc(f, func(a, b Fault) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
}

// maxQuoted is how much of a value a fault quotes.
const maxQuoted = 60

// quote is a value as a fault tells it: on one line and not too long of it.
func quote(s string) string {
	if len(s) > maxQuoted {
		s = strings.ToValidUTF8(s[:maxQuoted], "") + "…"
	}
	return strconv.Quote(s)
}

// OneOf writes a list of words as "a, b or c".
func OneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
