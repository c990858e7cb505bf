package udp

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func addr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func TestTableIsBounded(t *testing.T) {
	table := NewTable[int, string](Limits{Flows: 5, PerSource: 2, Idle: time.Minute})
	for i, want := range []Refusal{"", "", PerSource} {
		if _, got := table.Add(i, addr(1), 0); got != want {
			t.Errorf("flow %d of a source: %q, want %q", i, got, want)
		}
	}
	for i := 10; i < 13; i++ {
		if _, why := table.Add(i, addr(i), 0); why != "" {
			t.Errorf("flow %d: %q", i, why)
		}
	}
	if _, why := table.Add(99, addr(99), 0); why != Full {
		t.Errorf("one flow too many: %q, want %q", why, Full)
	}
	e := table.Get(10, 0)
	if !table.Remove(e) || table.Remove(e) || table.Get(10, 0) != nil {
		t.Error("a flow is not removed once")
	}
	if _, why := table.Add(99, addr(99), 0); why != "" {
		t.Errorf("a flow in a place that became free: %q", why)
	}
	table.Remove(table.Get(0, 0))
	table.Remove(table.Get(99, 0))
	if _, why := table.Add(3, addr(1), 0); why != "" {
		t.Errorf("another flow of a source, one of which has ended: %q", why)
	}
}

func TestSourcesOfIPv6AreNetworks(t *testing.T) {
	table := NewTable[int, string](Limits{Flows: 5, PerSource: 1, Idle: time.Minute})
	for i, tt := range []struct {
		source string
		want   Refusal
	}{{"2001:db8::1", ""}, {"2001:db8::2", PerSource}, {"2001:db8:0:1::1", ""}, {"192.0.2.1", ""}, {"::ffff:192.0.2.1", PerSource}, {"192.0.2.2", ""}} {
		if _, got := table.Add(i, netip.MustParseAddr(tt.source), 0); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.source, got, tt.want)
		}
	}
}

// Flows expire within a tick of their time and never before, whenever they were touched and however late Expire is called.
func TestTableExpires(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		idle := time.Duration(1 + random.IntN(100_000_000))
		table := NewTable[int, string](Limits{Flows: 1000, Idle: idle})
		touched := map[int]time.Duration{}
		now := time.Duration(random.IntN(1_000_000_000))
		for step := range 3000 {
			now += time.Duration(random.IntN(int(table.Tick()) + 1))
			if random.IntN(500) == 0 {
				now += 100 * idle // nobody called for long
			}
			k := random.IntN(300)
			if table.Get(k, now) != nil {
				touched[k] = now
			} else if added, why := table.Add(k, addr(k), now); why != "" || added.First != (len(touched) == 0) {
				t.Fatalf("seed %d, step %d: add: %q, first %v", seed, step, why, added.First)
			} else {
				touched[k] = now
			}
			if random.IntN(3) == 0 {
				if e := table.Get(k, now); random.IntN(2) == 0 {
					table.Remove(e)
					delete(touched, k)
				}
			}
			expired, left := table.Expire(now)
			for _, e := range expired {
				if now-touched[e.Key()] < idle {
					t.Fatalf("seed %d, step %d: a flow expired %s after it was touched, want %s", seed, step, now-touched[e.Key()], idle)
				}
				delete(touched, e.Key())
			}
			for k, at := range touched {
				if now-at > idle+2*table.Tick() {
					t.Fatalf("seed %d, step %d: flow %d is there %s after it was touched, idle %s, tick %s", seed, step, k, now-at, idle, table.Tick())
				}
			}
			if left != (len(touched) > 0) || table.Len() != len(touched) || len(table.All()) != len(touched) {
				t.Fatalf("seed %d, step %d: %d flows (left %v), want %d", seed, step, table.Len(), left, len(touched))
			}
		}
	}
}

func TestRate(t *testing.T) {
	r := NewRate(10)
	allowed := func(source netip.Addr, from, to, step time.Duration) (n int) {
		for now := from; now < to; now += step {
			if r.Allow(source, now) {
				n++
			}
		}
		return n
	}
	if n := allowed(addr(1), 0, 10*time.Second, time.Millisecond); n < 105 || n > 110 {
		t.Errorf("%d of 10,000 in 10 s were let through, want 10 at once and 10 a second", n)
	}
	if n := allowed(addr(2), 0, 10*time.Second, 200*time.Millisecond); n != 50 {
		t.Errorf("%d of 50 at half the rate were let through", n)
	}
	if none := NewRate(0); !none.Allow(addr(1), 0) || none.buckets != nil {
		t.Error("no limit is one, or costs memory")
	}
}

func BenchmarkTable(b *testing.B) {
	table := NewTable[netip.AddrPort, string](Limits{Flows: 10000, Idle: time.Minute})
	keys := make([]netip.AddrPort, 5000)
	for i := range keys {
		keys[i] = netip.AddrPortFrom(addr(i), 1)
		table.Add(keys[i], addr(i), 0)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if table.Get(keys[i%len(keys)], time.Duration(i)) == nil {
			b.Fatal("a flow is lost")
		}
	}
}
