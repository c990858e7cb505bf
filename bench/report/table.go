package report

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// Pair asks for the ratio of two systems.
type Pair struct{ System, Over string }

// Table prints a row's quantities: a column for each system that has figures, then one for each ratio that can be taken.
func (s *Samples) Table(w io.Writer, row string, systems []string, pairs []Pair) {
	var columns []string
	for _, name := range systems {
		if s.has(row, name) {
			columns = append(columns, name)
		}
	}
	var ratios []Pair
	for _, p := range pairs {
		if s.has(row, p.System) && s.has(row, p.Over) {
			ratios = append(ratios, p)
		}
	}
	head := append([]string{row}, columns...)
	for _, p := range ratios {
		head = append(head, p.System+" / "+p.Over)
	}
	fmt.Fprintf(w, "\n| %s |\n|---|%s\n", strings.Join(head, " | "), strings.Repeat("--:|", len(head)-1))
	for _, q := range s.Quantities(row) {
		cells := []string{q}
		for _, c := range columns {
			cells = append(cells, cell(s.Median(q, c)))
		}
		for _, p := range ratios {
			cells = append(cells, ratioCell(s.Ratio(q, p.System, p.Over)))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}

func (s *Samples) has(row, system string) bool {
	for _, a := range s.all {
		if a.Row == row && a.System == system {
			return true
		}
	}
	return false
}

func cell(v float64, rounds int) string {
	if rounds == 0 {
		return ""
	}
	return figure(v)
}

func ratioCell(v float64, rounds int) string {
	if rounds == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}

// figure prints three digits that count, and no more.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a >= 10000:
		return fmt.Sprintf("%.0f", math.Round(v/100)*100)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
