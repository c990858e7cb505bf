package dataplane

import (
	"testing"
	"time"
)

// What the file says of the time in a queue and of one attempt holds, also beyond the time that a search has otherwise.
func TestTheSearchForAMemberLastsAsLongAsTheFileLetsItWait(t *testing.T) {
	for settings, want := range map[string]time.Duration{
		"":                              30 * time.Second,
		"connect: {timeout: 40s},":      40 * time.Second,
		"queue: {max: 9, timeout: 2m},": 150 * time.Second,
		"queue: {timeout: 2m},":         30 * time.Second,
		"balance: first, connect: {timeout: 1s},": 30 * time.Second,
	} {
		d := start(t)
		apply(t, d, read(t, `
entrypoints: [{name: in, protocol: tcp, addr: "$addr", when_empty: reset, routes: [{upstream: pool}]}]
upstreams: [{name: pool, $settings members: [{address: "127.0.0.1:9", max_conns: 1}]}]
`, map[string]string{"addr": "127.0.0.1:0", "settings": settings}))
		d.mu.Lock()
		got := d.entries["in"].dialTimeout()
		d.mu.Unlock()
		if got != want {
			t.Errorf("%q: got %s, want %s", settings, got, want)
		}
	}
}
