package load

import (
	"slices"
	"time"
)

// Times are how long each of many things took.
type Times []time.Duration

// Quantile is the time that a share q of them kept to; zero of none. It sorts them.
func (t Times) Quantile(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	slices.Sort(t)
	return t[min(int(q*float64(len(t))), len(t)-1)]
}

// Milliseconds is a duration as a figure.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
