package proxy

import (
	"time"

	"culvert/internal/udp"
)

// NewFlowRoom makes the room that the flows of all entrypoints share: half of the process's descriptors, of which a flow to
// a fixed member takes one. The other half is for connections, which no flood of datagrams can take away.
func NewFlowRoom() *udp.Room { return udp.NewRoom(mostDescriptors() / 2) }

// crowding tells the log that flows find no place: once a minute, however many there are. It is for one goroutine.
type crowding struct {
	dropped int           // datagrams that nobody has heard of
	until   time.Duration // nothing is said before
}

func (c *crowding) refused(u *UDP, why udp.Refusal, now time.Duration) {
	u.count.drop(string(why), 1)
	if c.dropped++; now < c.until {
		return
	}
	setting := "max_flows"
	if why == udp.PerSource {
		setting = "max_flows_per_source"
	}
	u.cfg.Log.Warn("new flows find no place, their datagrams are dropped", "entrypoint", u.cfg.Label, "flows", u.flows.Len(),
		"dropped", c.dropped, "reason", string(why), "raise", setting)
	c.dropped, c.until = 0, now+time.Minute
}
