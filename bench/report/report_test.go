package report

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	tests := map[string]struct {
		values []float64
		want   float64
	}{
		"of none":             {nil, 0},
		"of one":              {[]float64{7}, 7},
		"of an odd number":    {[]float64{9, 1, 5}, 5},
		"of an even number":   {[]float64{9, 1, 5, 6}, 5.5},
		"does not mind a one": {[]float64{1, 1, 1000}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := append([]float64(nil), tt.values...)
			if got := median(tt.values); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if diff := cmp.Diff(before, tt.values); diff != "" {
				t.Errorf("the values were changed: %s", diff)
			}
		})
	}
}

// slow is a run in whose second round everything took ten times as long.
func slow() *Samples {
	s := new(Samples)
	for round, factor := range []float64{1, 10, 1} {
		s.Add(Sample{"http", "CPU", "ours", round, 20 * factor})
		s.Add(Sample{"http", "CPU", "theirs", round, 10 * factor})
		s.Add(Sample{"http", "p99", "ours", round, 0.5})
	}
	return s
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	s := slow()
	s.Add(Sample{"http", "CPU", "ours", 3, 900}) // a round that the other one missed
	if v, n := s.Ratio("CPU", "ours", "theirs"); v != 2 || n != 3 {
		t.Errorf("got %v of %d rounds, want 2 of 3", v, n)
	}
	if _, n := s.Ratio("CPU", "ours", "nobody"); n != 0 {
		t.Errorf("with nobody: got %d rounds", n)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	slow().Table(&b, "http", []string{"ours", "absent", "theirs"}, []Pair{{"ours", "theirs"}, {"ours", "absent"}})
	want := `
| http | ours | theirs | ours / theirs |
|---|--:|--:|--:|
| CPU | 20.0 | 10.0 | 2.00 |
| p99 | 0.50 |  |  |
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("difference (-want +got):\n%s", diff)
	}
}

func TestGates(t *testing.T) {
	var b strings.Builder
	broken := slow().Gates(&b, []Gate{
		{Name: "of theirs", Quantity: "CPU", System: "ours", Over: "theirs", Limit: 2},
		{Name: "too much", Quantity: "CPU", System: "ours", Limit: 19},
		{Name: "enough", Quantity: "CPU", System: "theirs", Limit: 10, AtLeast: true},
		{Name: "of another", Quantity: "CPU", System: "ours", OverQuantity: "p99", Limit: 30},
		{Name: "not measured", Quantity: "x", System: "ours", Limit: 1},
	})
	want := `
| gate | limit | figure | holds |
|---|--:|--:|---|
| of theirs | ≤ 2 | 2.00 | yes |
| too much | ≤ 19 | 20.0 | **no** |
| enough | ≥ 10 | 10.0 | yes |
| of another | ≤ 30 | 40.0 | **no** |
`
	if diff := cmp.Diff(want, b.String()); diff != "" || broken != 2 {
		t.Errorf("%d broken, difference (-want +got):\n%s", broken, diff)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.123: "0.12", 9.999: "10.00", 12.34: "12.3", 123.4: "123", 1234: "1234", 31370: "31400", -0.5: "-0.50"} {
		if got := figure(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
	if got := figure(math.Inf(1)); got != "+Inf" {
		t.Errorf("infinity: got %q", got)
	}
}
