package proc

import (
	"math"
	"os"
	"slices"
	"testing"
)

func TestParseStat(t *testing.T) {
	tests := map[string]struct {
		line string
		want stat
		bad  bool
	}{
		"a plain name": {line: "42 (wrk) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 3 7 20 0 1 0 9 10 11\n", want: stat{parent: 7, cpu: 2.1}},
		"a name with spaces and parentheses": {
			line: "43 (a) b) (c) R 1 42 42 0 -1 4194560 1 2 3 4 0 1 0 0 20 0 1\n", want: stat{parent: 1, cpu: 0.01},
		},
		"empty":     {line: "", bad: true},
		"cut short": {line: "42 (wrk) S 7 42", bad: true},
		"no number": {line: "42 (wrk) S x 42 42 0 -1 4194560 1 2 3 4 150 50 3 7 20 0 1", bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat([]byte(tt.line))
			if (err != nil) != tt.bad || got.parent != tt.want.parent || math.Abs(got.cpu-tt.want.cpu) > 1e-9 {
				t.Errorf("got %+v, %v; want %+v, error %v", got, err, tt.want, tt.bad)
			}
		})
	}
}

func TestDescend(t *testing.T) {
	children := map[int][]int{1: {2, 9}, 2: {3, 4}, 4: {5}, 5: {2}} // an id that was used again must not loop
	if got, want := descend(2, children), []int{2, 3, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseMachine(t *testing.T) {
	text := "cpu  100 200 300 4000 50 60 70 8 0 0\ncpu0 1 2 3 4\n"
	if got := parseMachine(text); math.Abs(got-7.3) > 1e-9 {
		t.Errorf("got %v, want 7.3: user, nice, system, irq and softirq", got)
	}
}

func TestParseRollup(t *testing.T) {
	text := "00400000-7ffc [rollup]\nRss:               13216 kB\nPss:                1000 kB\nPss_Rss: 5 kB\n"
	if got := parseRollup(text); got != 13216<<10 {
		t.Errorf("got %d, want %d", got, 13216<<10)
	}
	if got := parseRollup("nothing"); got != 0 {
		t.Errorf("of nothing: got %d", got)
	}
}

func TestThisProcess(t *testing.T) {
	tree := Tree(os.Getpid())
	if tree[0] != os.Getpid() || Memory(tree) < 1<<20 || Machine() <= 0 {
		t.Errorf("tree %v, memory %d, machine %v", tree, Memory(tree), Machine())
	}
}
