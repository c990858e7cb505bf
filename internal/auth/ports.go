package auth

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Ports is a set of port numbers from 1 to 65535. The zero Ports is empty. It is immutable.
type Ports struct {
	ranges []portRange // ascending, with a gap between each two
}

type portRange struct{ first, last uint16 }

// AllPorts is every port.
func AllPorts() Ports { return Ports{[]portRange{{1, 65535}}} }

// ParsePorts reads a list of ports and ranges, "80,443,8000-8100", in any order; "*" is every port and "" none.
func ParsePorts(s string) (Ports, error) {
	if strings.TrimSpace(s) == "" {
		return Ports{}, nil
	}
	var ranges []portRange
	for item := range strings.SplitSeq(s, ",") {
		r, err := parseRange(strings.TrimSpace(item))
		if err != nil {
			return Ports{}, fmt.Errorf("ports %.80q: %w", s, err)
		}
		ranges = append(ranges, r)
	}
	return Ports{merge(ranges)}, nil
}

func parseRange(s string) (portRange, error) {
	if s == "*" {
		return portRange{1, 65535}, nil
	}
	low, high, isRange := strings.Cut(s, "-")
	first, err := parsePort(low)
	if err != nil {
		return portRange{}, err
	}
	if !isRange {
		return portRange{first, first}, nil
	}
	last, err := parsePort(high)
	switch {
	case err != nil:
		return portRange{}, err
	case last < first:
		return portRange{}, fmt.Errorf("range %d-%d ends before it begins", first, last)
	}
	return portRange{first, last}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%.20q is not a port from 1 to 65535", s)
	}
	return uint16(n), nil
}

// merge sorts ranges and joins those that overlap or touch.
func merge(ranges []portRange) []portRange {
	slices.SortFunc(ranges, func(a, b portRange) int { return cmp.Compare(a.first, b.first) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && int(r.first) <= int(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Contains says whether the port is in the set.
func (p Ports) Contains(port uint16) bool {
	for _, r := range p.ranges {
		if r.first <= port && port <= r.last {
			return true
		}
	}
	return false
}

// IsZero says whether the set is empty.
func (p Ports) IsZero() bool { return len(p.ranges) == 0 }

// Equal says whether the sets have the same ports.
func (p Ports) Equal(other Ports) bool { return slices.Equal(p.ranges, other.ranges) }

// String is the set as ParsePorts reads it, ascending and as short as can be: "80,443,8000-8100".
func (p Ports) String() string { return strings.Join(p.list(), ",") }

func (p Ports) list() []string {
	items := make([]string, 0, len(p.ranges))
	for _, r := range p.ranges {
		s := strconv.Itoa(int(r.first))
		if r.last > r.first {
			s += "-" + strconv.Itoa(int(r.last))
		}
		items = append(items, s)
	}
	return items
}
