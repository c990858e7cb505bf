package dataplane

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkReload is what a change of a large file costs while everybody else waits for the data plane's mutex: 1,000 routes by
// source, and one upstream of 1,000 members of which one changes its weight.
func BenchmarkReload(b *testing.B) {
	var routes, members strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&routes, "{name: r%d, match: {source: 10.%d.%d.0/24}, upstream: pool}, ", i, i/256, i%256)
		if i > 0 {
			fmt.Fprintf(&members, `, {address: "127.1.%d.%d:9"}`, i/256, i%256)
		}
	}
	text := fmt.Sprintf(`
entrypoints: [{name: in, addr: "127.0.0.1:0", when_empty: reset, routes: [%s{upstream: pool}]}]
upstreams: [{name: pool, members: [{address: "127.0.0.1:9", weight: $weight}%s]}]
`, &routes, &members)
	d := start(b)
	one, two := read(b, text, map[string]string{"weight": "1"}), read(b, text, map[string]string{"weight": "2"})
	b.ReportAllocs()
	for b.Loop() {
		apply(b, d, one)
		apply(b, d, two)
	}
}
