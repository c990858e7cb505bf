package auth

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParsePorts(t *testing.T) {
	const bad = "error"
	tests := []struct {
		name, in, want string
	}{
		{"none", "", ""},
		{"one", "80", "80"},
		{"list and range", "80,443,8000-8100", "80,443,8000-8100"},
		{"spaces", " 80 , 443", "80,443"},
		{"any order", "443,80", "80,443"},
		{"twice the same", "80,80", "80"},
		{"neighbours join", "80,81,82-90", "80-90"},
		{"overlapping ranges join", "80-90,85-100,95", "80-100"},
		{"one range in another", "80-100,85-90", "80-100"},
		{"range of one", "80-80", "80"},
		{"every port", "*", "1-65535"},
		{"every port and one", "*,80", "1-65535"},
		{"highest", "65535", "65535"},
		{"up to the highest", "65534,65535", "65534-65535"},
		{"leading zeros", "0080", "80"},
		{"zero", "0", bad},
		{"too high", "65536", bad},
		{"range from zero", "0-80", bad},
		{"range beyond the highest", "80-65536", bad},
		{"range backwards", "90-80", bad},
		{"open range", "80-", bad},
		{"range from nothing", "-80", bad},
		{"range of three", "1-2-3", bad},
		{"name", "http", bad},
		{"sign", "+80", bad},
		{"empty item", "80,,443", bad},
		{"comma at the end", "80,", bad},
		{"spaces in a range", "80 - 90", bad},
		{"glob", "80*", bad},
		{"digits of another script", "８０", bad},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePorts(tt.in)
			if tt.want == bad {
				if err == nil || !got.IsZero() {
					t.Errorf("ParsePorts(%q) = %q, %v; want only an error", tt.in, got, err)
				}
				return
			}
			if got.String() != tt.want || err != nil {
				t.Errorf("ParsePorts(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestPortsContains(t *testing.T) {
	p := mustPorts(t, "80,8000-8100,65535")
	for port, want := range map[uint16]bool{
		0: false, 79: false, 80: true, 81: false, 7999: false, 8000: true, 8050: true, 8100: true, 8101: false, 65534: false, 65535: true,
	} {
		if got := p.Contains(port); got != want {
			t.Errorf("Contains(%d) = %v, want %v", port, got, want)
		}
	}
	all := AllPorts()
	if all.Contains(0) || !all.Contains(1) || !all.Contains(65535) || (Ports{}).Contains(80) {
		t.Error("AllPorts is not 1 to 65535, or the zero Ports not empty")
	}
}

// A set contains what its items say one by one, and is the same set in whatever order they come.
func TestPortsAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			want  [65536]bool
			items []string
		)
		for range rapid.IntRange(1, 8).Draw(t, "items") {
			first := rapid.IntRange(1, 200).Draw(t, "first")
			last := first + rapid.IntRange(0, 20).Draw(t, "more")
			items = append(items, fmt.Sprintf("%d-%d", first, last))
			for i := first; i <= last; i++ {
				want[i] = true
			}
		}
		p := mustPorts(t, strings.Join(items, ","))
		for i := range 300 {
			if p.Contains(uint16(i)) != want[i] {
				t.Fatalf("%v contains %d: %v, want %v", items, i, !want[i], want[i])
			}
		}
		if again := mustPorts(t, strings.Join(rapid.Permutation(items).Draw(t, "order"), ",")); !again.Equal(p) {
			t.Fatalf("%v is %s in one order and %s in another", items, p, again)
		}
	})
}

func FuzzParsePorts(f *testing.F) {
	for _, s := range []string{"", "80", "80,443,8000-8100", "*", "1-65535", "0", "-", "65535,65534", " 1 ,2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		p, err := ParsePorts(in)
		if err != nil {
			return
		}
		if p.Contains(0) {
			t.Fatalf("ParsePorts(%q) contains port 0", in)
		}
		if again, err := ParsePorts(p.String()); err != nil || !again.Equal(p) {
			t.Fatalf("ParsePorts(%q) = %q, read again %q, %v", in, p, again, err)
		}
	})
}

func mustPorts(t interface{ Fatal(...any) }, s string) Ports {
	p, err := ParsePorts(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
