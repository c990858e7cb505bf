// Package report keeps what was measured and prints medians, ratios and gates as Markdown.
//
// A ratio is taken within each round, where both systems ran within seconds of each other, and the median of those is
// printed: what else the machine did then weighs on both.
package report

import (
	"slices"
)

// Sample is one figure of one round.
type Sample struct {
	Row      string  `json:"row"`
	Quantity string  `json:"quantity"` // with its unit
	System   string  `json:"system"`
	Round    int     `json:"round"`
	Value    float64 `json:"value"`
}

// Samples are all figures of a run.
type Samples struct{ all []Sample }

// Add keeps a figure.
func (s *Samples) Add(a Sample) { s.all = append(s.all, a) }

// All are the figures in the order in which they came.
func (s *Samples) All() []Sample { return s.all }

// Quantities are a row's quantities in the order in which they first came.
func (s *Samples) Quantities(row string) []string {
	var names []string
	for _, a := range s.all {
		if a.Row == row && !slices.Contains(names, a.Quantity) {
			names = append(names, a.Quantity)
		}
	}
	return names
}

// Rows are the rows in the order in which they first came.
func (s *Samples) Rows() []string {
	var names []string
	for _, a := range s.all {
		if !slices.Contains(names, a.Row) {
			names = append(names, a.Row)
		}
	}
	return names
}

// Median is a system's median of a quantity over the rounds, and of how many.
func (s *Samples) Median(quantity, system string) (value float64, rounds int) {
	var values []float64
	for _, a := range s.all {
		if a.Quantity == quantity && a.System == system {
			values = append(values, a.Value)
		}
	}
	return median(values), len(values)
}

// Ratio is the median over the rounds of one system's figure divided by another's, and of how many rounds had both.
func (s *Samples) Ratio(quantity, system, over string) (value float64, rounds int) {
	byRound := map[int]float64{}
	for _, a := range s.all {
		if a.Quantity == quantity && a.System == over && a.Value != 0 {
			byRound[a.Round] = a.Value
		}
	}
	var ratios []float64
	for _, a := range s.all {
		if base, ok := byRound[a.Round]; ok && a.Quantity == quantity && a.System == system {
			ratios = append(ratios, a.Value/base)
		}
	}
	return median(ratios), len(ratios)
}

// median is the middle value, the mean of the two middle ones, or 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
