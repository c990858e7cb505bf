//go:build linux

package e2e

import (
	"testing"
	"time"
)

// An outage is one way to cut the path between client and server.
type outage struct {
	name       string
	begin, end func(t *testing.T)
}

// outages are the cuts of one run: one short one, or five long ones by a relay that resets and one that drops packets.
func outages(t *testing.T, relay *cutter, control string) (cuts []outage, each time.Duration) {
	t.Helper()
	reset := outage{"connections reset, new ones refused", relay.cut, relay.mend}
	if !long() {
		return []outage{reset}, 1500 * time.Millisecond
	}
	f := startFirewall(t)
	dropped := outage{"packets dropped", func(t *testing.T) { f.drop(t, toOrFrom(t, relay.addr, control)...) }, f.clear}
	return []outage{reset, reset, reset, reset, reset, dropped}, 10 * time.Second
}
