package udp

import (
	"math/rand/v2"
	"testing"
	"time"
)

// add adds a flow of a source and gives whose place it got: -1 for nobody's.
func add(t *testing.T, table *Table[int, string], key, from int, now time.Duration) (replaced int, why Refusal) {
	t.Helper()
	added, why := table.Add(key, addr(from), now)
	if added.Replaced == nil {
		return -1, why
	}
	if !added.Replaced.gone || added.First || why != "" {
		t.Errorf("flow %d got the place of one that is gone: %v; as the first: %v; refused: %q", key, added.Replaced.gone, added.First, why)
	}
	return added.Replaced.Key(), why
}

func TestAFlowThatIsOverGivesWay(t *testing.T) {
	const ms = time.Millisecond
	table := NewTable[int, string](Limits{Flows: 3, PerSource: 2, Idle: time.Minute})
	answer := func(key int, now time.Duration) { table.Answered(table.flows[key], now) }
	try := func(name string, key, from int, now time.Duration, replaces int, refused Refusal) {
		t.Helper()
		if got, why := add(t, table, key, from, now); got != replaces || why != refused {
			t.Errorf("%s: in place of %d, %q, want %d, %q", name, got, why, replaces, refused)
		}
	}
	try("room", 1, 1, 0, -1, "")
	try("room", 2, 2, 100*ms, -1, "")
	try("room", 3, 3, 200*ms, -1, "")
	try("nobody is silent for long enough", 4, 4, 1999*ms, -1, Full)
	try("the first one was not answered for 2 s", 4, 4, 2000*ms, 1, "")
	answer(3, 2000*ms)
	try("2 is silent for longer, but may ask again", 5, 5, 2050*ms, -1, Full)
	table.Get(2, 2100*ms) // it asks once more
	try("3 was answered just now", 5, 5, 2499*ms, -1, Full)
	try("3 was answered and is silent", 5, 5, 2500*ms, 3, "")
	answer(4, 3100*ms)
	answer(2, 3200*ms)
	try("2 was answered once for two questions, and 4 will be over before", 6, 5, 4150*ms, 4, "")
	answer(2, 4200*ms)
	try("2 was answered twice", 4, 4, 5200*ms, 2, "")
	answer(4, 5200*ms)
	table.Get(5, 5250*ms)
	table.Get(6, 5250*ms)
	try("a source that has its share, none of which is over", 7, 5, 6300*ms, -1, PerSource)
	answer(5, 6300*ms)
	answer(5, 6400*ms)
	try("of which one is, though another's is silent for longer", 7, 5, 7400*ms, 5, "")
	try("which matters to nobody else", 8, 8, 7500*ms, 4, "")
}

func TestAnEstablishedFlowStays(t *testing.T) {
	table := NewTable[int, string](Limits{Flows: 1, Idle: time.Minute})
	added, _ := table.Add(1, addr(1), 0)
	table.Answered(added.Entry, 0)
	for range EstablishedAfter - 2 {
		table.Get(1, 0)
	}
	if added.Entry.established.Load() {
		t.Errorf("a flow is established after %d datagrams of its visitor's", EstablishedAfter-1)
	}
	table.Get(1, 0)
	if got, why := add(t, table, 2, 2, 59*time.Second); got != -1 || why != Full {
		t.Errorf("the place of an established flow is given away: %d, %q", got, why)
	}
	table.Remove(added.Entry)
	table.Add(1, addr(1), 0)
	for range 2 * EstablishedAfter {
		table.Get(1, 0)
	}
	if got, why := add(t, table, 2, 2, UnansweredSilence); got != 1 || why != "" {
		t.Errorf("nobody answers, and still there is no place: %d, %q", got, why)
	}
}

func TestRoomIsShared(t *testing.T) {
	room := NewRoom(3)
	one := NewTable[int, string](Limits{Flows: 10, Idle: time.Minute, Room: room})
	two := NewTable[int, string](Limits{Flows: 10, Idle: time.Minute, Room: room})
	for i := range 2 {
		add(t, one, i, i, 0)
	}
	add(t, two, 1, 1, 0)
	for _, table := range []*Table[int, string]{one, two} {
		if _, why := add(t, table, 9, 9, 0); why != Full {
			t.Errorf("a fourth flow where three have room: %q", why)
		}
	}
	if got, why := add(t, two, 2, 2, UnansweredSilence); got != 1 || why != "" {
		t.Errorf("in place of one of its own: %d, %q", got, why)
	}
	one.Remove(one.flows[0])
	if _, why := add(t, two, 3, 3, UnansweredSilence); why != "" {
		t.Errorf("where another table has made room: %q", why)
	}
	one.Expire(2 * time.Minute)
	if two.Expire(2 * time.Minute); room.used.Load() != 0 {
		t.Errorf("%d flows have room that nobody has", room.used.Load())
	}
}

// Whatever happens, a flow that is not established stands in the ring of its kind, of the table and of its source, in the
// order in which something was last heard of it; an established one stands in none, and is never replaced.
func TestOrderOfWhatIsFleeting(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 1))
		table := NewTable[int, string](Limits{Flows: 40, PerSource: 15, Idle: 5 * time.Second})
		now := time.Duration(0)
		established, replaced, refused := 0, 0, 0
		for step := range 2000 {
			now += time.Duration(random.IntN(int(30 * time.Millisecond)))
			k := random.IntN(1 + random.IntN(200)) // some often
			e := table.flows[k]
			switch random.IntN(4) {
			case 0, 1:
				if table.Get(k, now) != nil {
					break
				}
				added, why := table.Add(k, addr(k%5), now)
				if why != "" {
					refused++
					if goes, _ := table.makeRoom(addr(k%5), now); goes != nil {
						t.Fatalf("seed %d, step %d: flow %d is refused though %d is over", seed, step, k, goes.key)
					}
				}
				if r := added.Replaced; r != nil {
					replaced++
					silence := UnansweredSilence
					if r.got >= r.sent {
						silence = AnsweredSilence
					}
					if r.established.Load() || now-r.heard < silence {
						t.Fatalf("seed %d, step %d: flow %d, established %v, was replaced after %s of silence", seed, step, r.key, r.established.Load(), now-r.heard)
					}
				}
			case 2:
				if e != nil {
					table.Answered(e, now)
				}
			case 3:
				if e != nil && random.IntN(10) == 0 {
					table.Remove(e)
					table.Answered(e, now) // as it may happen
				}
				table.Expire(now)
			}
			established = max(established, wellOrdered(t, table))
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
		if established == 0 || replaced == 0 || refused == 0 {
			t.Errorf("seed %d: at most %d established, %d replaced, %d refused: nothing was tried", seed, established, replaced, refused)
		}
	}
}

// wellOrdered checks a table's rings and counts its established flows.
func wellOrdered(t *testing.T, table *Table[int, string]) (established int) {
	t.Helper()
	count := func(f *fleeting[int, string], of *source[int, string]) (n int) {
		for _, head := range []*ring[int, string]{&f.asked, &f.answered} {
			last := time.Duration(-1)
			for r := head.next; r != head; r = r.next {
				e := r.entry
				if f.kind(e) != head || e.established.Load() || e.gone || e.heard < last || of != nil && e.source != of || table.flows[e.key] != e {
					t.Errorf("flow %d does not belong where it stands", e.key)
				}
				last = e.heard
				n++
			}
		}
		return n
	}
	nearby, flows := 0, 0
	for _, s := range table.sources {
		nearby += count(&s.fleeting, s)
		flows += s.flows
	}
	for _, e := range table.flows {
		if e.established.Load() {
			established++
		}
	}
	if all := count(&table.fleeting, nil); all != nearby || all+established != len(table.flows) || flows != len(table.flows) {
		t.Errorf("%d flows, %d by source: %d established, %d not, %d by source", len(table.flows), flows, established, all, nearby)
	}
	return established
}
