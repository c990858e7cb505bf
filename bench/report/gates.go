package report

import (
	"fmt"
	"io"
	"strings"
)

// Gate is a bound that a figure, or a ratio if Over is set, must keep to.
type Gate struct {
	Name             string
	Quantity, System string
	Over             string
	OverQuantity     string // the other figure is another quantity of the same system; excludes Over
	Limit            float64
	AtLeast          bool // the limit is a floor, not a ceiling
}

// figure gives the gate's figure, and whether there is one.
func (g Gate) figure(s *Samples) (float64, bool) {
	switch {
	case g.Over != "":
		v, n := s.Ratio(g.Quantity, g.System, g.Over)
		return v, n > 0
	case g.OverQuantity != "":
		v, n := s.Median(g.Quantity, g.System)
		base, m := s.Median(g.OverQuantity, g.System)
		if n == 0 || m == 0 || base == 0 {
			return 0, false
		}
		return v / base, true
	default:
		v, n := s.Median(g.Quantity, g.System)
		return v, n > 0
	}
}

func (g Gate) holds(v float64) bool {
	if g.AtLeast {
		return v >= g.Limit
	}
	return v <= g.Limit
}

// Gates prints those gates for which there are figures, and says how many do not hold.
func (s *Samples) Gates(w io.Writer, gates []Gate) (broken int) {
	var b strings.Builder
	for _, g := range gates {
		v, ok := g.figure(s)
		if !ok {
			continue
		}
		sign, verdict := "≤", "yes"
		if g.AtLeast {
			sign = "≥"
		}
		if !g.holds(v) {
			verdict = "**no**"
			broken++
		}
		fmt.Fprintf(&b, "| %s | %s %g | %s | %s |\n", g.Name, sign, g.Limit, figure(v), verdict)
	}
	if b.Len() > 0 {
		fmt.Fprintf(w, "\n| gate | limit | figure | holds |\n|---|--:|--:|---|\n%s", b.String())
	}
	return broken
}
