package trials

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChoose(t *testing.T) {
	all := []string{"a", "b", "c"}
	tests := map[string]struct {
		list string
		want []string
		bad  bool
	}{
		"all":           {list: "all", want: all},
		"in order":      {list: "c,a", want: []string{"a", "c"}},
		"unknown":       {list: "a,x", bad: true},
		"nothing named": {list: "", bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := choose(tt.list, all)
			if diff := cmp.Diff(tt.want, got); diff != "" || (err != nil) != tt.bad {
				t.Errorf("error %v, difference (-want +got):\n%s", err, diff)
			}
		})
	}
}
