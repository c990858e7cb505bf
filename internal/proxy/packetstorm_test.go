package proxy

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// refusing is a member that gives no connection.
type refusing struct {
	upstream.Member
	name  string
	until chan struct{} // it thinks about it; nil: it says so at once
	dials atomic.Int64
}

func (m *refusing) Name() string { return m.name }

func (m *refusing) Dial(context.Context, *upstream.Visit) (upstream.Dialed, error) {
	m.dials.Add(1)
	if m.until != nil {
		<-m.until
	}
	return upstream.Dialed{}, &upstream.DialError{Reason: upstream.Unreachable, Err: errors.New("no route to it")}
}

func TestADatagramThatNobodyTakesIsDropped(t *testing.T) {
	reg := prometheus.NewRegistry()
	one, two := &refusing{name: "one"}, &refusing{name: "two"}
	_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(pool(one, two)), PerPacket: true, Metrics: NewUDPMetrics(reg)})
	c := visitor(t, at)
	for i := range 3 {
		tell(t, c, "x")
		await(t, func() bool {
			if n := one.dials.Load() + two.dials.Load(); n > 100 {
				t.Fatalf("%d datagrams were worth %d dials of two members", i+1, n)
			}
			return counter(t, reg, "culvert_udp_dropped_total", "reason", droppedNoMember) == float64(i+1)
		})
	}
	if n := one.dials.Load() + two.dials.Load(); n > 6 {
		t.Errorf("three datagrams were worth %d dials of two members", n)
	}
}

// Each datagram goes by its own source, also when it waited for a member together with others.
func TestDatagramsThatWaitedGoByTheirOwnSource(t *testing.T) {
	mine, others := serveDatagrams(t, "mine", "127.0.0.1:0", named("mine")), serveDatagrams(t, "others", "127.0.0.1:0", named("others"))
	away := &refusing{name: "away", until: make(chan struct{})}
	first, second, third := pool(away), pool(datagramsTo(mine.addr())), pool(datagramsTo(others.addr()))
	u := NewUDP(UDPConfig{Label: "test", Log: quiet(), PerPacket: true, Route: func(source netip.Addr, _ uint32, from int) (*upstream.Upstream, int, bool, bool) {
		switch {
		case from == 0:
			return first, 0, true, true
		case strings.HasSuffix(source.String(), ".3"):
			return second, 1, false, true
		}
		return third, 1, false, true
	}})
	t.Cleanup(func() { u.end(); u.packets.close(); u.work.Wait() })
	for _, from := range []string{"127.0.0.3:1000", "127.0.0.2:1000", "127.0.0.2:1000"} {
		u.handle(udp.Packet{Source: netip.MustParseAddrPort(from), Data: []byte("x")})
	}
	close(away.until)
	heard := func(s *datagramService) int { _, n := s.ports(); return n }
	await(t, func() bool { return heard(mine)+heard(others) == 3 })
	if heard(mine) != 1 || heard(others) != 2 {
		t.Errorf("got %d and %d datagrams, want 1 and 2", heard(mine), heard(others))
	}
}
