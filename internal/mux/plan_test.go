package mux_test

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// ending is what a user of a stream does with it at last.
type ending int

const (
	finishes ending = iota // writes all, half-closes, reads to the end, closes
	resets                 // resets it at some byte
	leaves                 // closes it at some byte, which is a reset
	hangsUp                // writes all, ends it and reads nothing more
)

// sidePlan is what one side of a stream does.
type sidePlan struct {
	size   int // bytes that it writes
	chunk  int // at most so many at a time
	pause  time.Duration
	pauses int // pauses after so many chunks, written or read
	ending ending
	at     int  // the byte of a reset or a close
	byRead bool // counted among those read, not among those written
	copies bool // uses Pull and Push, not Write and Read
	hasty  bool // sets deadlines that pass, and goes on
	along  bool // of one that hangs up: reads until then
}

// streamPlan is one stream's life.
type streamPlan struct {
	index      int
	fromClient bool
	begin      time.Duration
	early      bool // writes without waiting for received
	refuse     uint8
	decide     time.Duration // the acceptor's time to decide
	sides      [2]sidePlan   // the opener's, the acceptor's
}

// clean is true when nobody gives the stream up, so that every byte must arrive.
func (p streamPlan) clean() bool {
	return p.refuse == 0 && p.sides[0].ending == finishes && p.sides[1].ending == finishes
}

// absence is a time without any link.
type absence struct {
	at, length time.Duration // after the begin; length 0: none
	how        fault
}

// roundPlan is all that chance decides about a round, beside the goroutines' order.
type roundPlan struct {
	seed     uint64
	links    int
	resume   time.Duration
	budget   int64
	carrier  bool // the links take buffers over, and tell how much they hold
	cables   []cableConfig
	latency  time.Duration
	slow     time.Duration // the longest pause
	patience time.Duration // how long the round may take
	grow     time.Duration // how often the client adds a link that it has not
	away     absence
	lethal   bool // the absence outlasts the resume window
	streams  []streamPlan
}

func (p *roundPlan) String() string {
	return fmt.Sprintf("links %d, resume %s, budget %d, latency %s, cables %d, away %+v, lethal %t, carrier %t, streams %d",
		p.links, p.resume, p.budget, p.latency, len(p.cables), p.away, p.lethal, p.carrier, len(p.streams))
}

// conditions are those of the round's world, which differ between fake and real time.
type conditions struct {
	faults   []fault
	slow     time.Duration // the longest pause
	patience time.Duration // how long a round may take on its clock
	absences bool
	mostSize int
}

func newRoundPlan(seed uint64, in conditions) *roundPlan {
	rng := rand.New(rand.NewPCG(seed, 3))
	p := &roundPlan{
		seed:     seed,
		links:    1 + rng.IntN(4),
		resume:   30 * time.Second,
		budget:   []int64{0, 1 << 20, 64 << 20}[rng.IntN(3)],
		carrier:  rng.IntN(2) == 0,
		slow:     in.slow,
		patience: in.patience,
		grow:     in.slow * time.Duration(1+rng.IntN(20)),
	}
	if in.absences {
		p.latency = time.Duration(rng.IntN(4)) * 7 * time.Millisecond
		p.planAbsence(rng)
	}
	total := 0
	for i := range 1 + rng.IntN(12) {
		s := newStreamPlan(rng, i, in)
		total += s.sides[0].size + s.sides[1].size
		p.streams = append(p.streams, s)
	}
	for range rng.IntN(12) {
		p.cables = append(p.cables, newCableConfig(rng, p.latency, total, in.faults))
	}
	return p
}

// planAbsence makes the client stay away, too long or nearly so.
func (p *roundPlan) planAbsence(rng *rand.Rand) {
	if rng.IntN(8) != 0 {
		return
	}
	p.away = absence{at: time.Duration(rng.IntN(3000)) * time.Millisecond, how: torn}
	if p.lethal = rng.IntN(2) == 0; p.lethal {
		p.away.length = time.Hour
		p.away.how = []fault{torn, drained, ended, blackhole}[rng.IntN(4)]
		p.resume = []time.Duration{30 * time.Second, 2 * time.Second}[rng.IntN(2)]
		return
	}
	p.away.length = time.Duration(rng.IntN(15)) * time.Second
}

func newCableConfig(rng *rand.Rand, latency time.Duration, total int, faults []fault) cableConfig {
	c := cableConfig{
		rng:     rand.New(rand.NewPCG(rng.Uint64(), 1)),
		latency: latency,
		room:    []int{1 << 10, 20 << 10, 256 << 10}[rng.IntN(3)],
		abrupt:  rng.IntN(2) == 0,
	}
	at := 1 + rng.IntN(2000)
	if rng.IntN(2) == 0 {
		at = 1 + rng.IntN(2000+total)
	}
	c.cuts[rng.IntN(2)] = cut{how: faults[rng.IntN(len(faults))], at: int64(at)}
	return c
}

func newStreamPlan(rng *rand.Rand, index int, in conditions) streamPlan {
	pause := func(most time.Duration) time.Duration {
		if rng.IntN(3) != 0 {
			return 0
		}
		return time.Duration(rng.Int64N(int64(most) + 1))
	}
	p := streamPlan{
		index:      index,
		fromClient: rng.IntN(2) == 0,
		begin:      pause(3 * in.slow),
		early:      rng.IntN(2) == 0,
		decide:     pause(in.slow),
	}
	if rng.IntN(12) == 0 {
		p.refuse = uint8(1 + rng.IntN(200))
	}
	for i := range p.sides {
		s := sidePlan{
			size:   someSize(rng, in.mostSize),
			chunk:  1 + someSize(rng, 100<<10),
			pause:  pause(in.slow),
			pauses: 1 + rng.IntN(10),
			copies: rng.IntN(3) == 0,
			hasty:  rng.IntN(8) == 0,
			along:  rng.IntN(2) == 0,
		}
		s.chunk = max(s.chunk, s.size/200)
		switch rng.IntN(14) {
		case 0:
			s.ending = resets
		case 1:
			s.ending = leaves
		case 2:
			s.ending = hangsUp
		}
		p.sides[i] = s
	}
	if a, b := p.sides[0], &p.sides[1]; a.ending == hangsUp && b.ending == hangsUp && !a.along {
		b.along = true // two who write more than there is room for, and read nothing, wait for each other for ever
	}
	for i := range p.sides {
		s := &p.sides[i]
		if s.byRead = rng.IntN(2) == 0; s.byRead {
			s.at = rng.IntN(p.sides[1-i].size + 1)
		} else {
			s.at = rng.IntN(s.size + 1)
		}
	}
	return p
}

// someSize is mostly small.
func someSize(rng *rand.Rand, most int) int {
	switch n := rng.IntN(20); {
	case n < 4:
		return 0
	case n < 6:
		return 1
	case n < 12:
		return rng.IntN(1 << 10)
	case n < 17:
		return rng.IntN(min(most, 70<<10))
	case n < 19 || rng.IntN(4) != 0:
		return rng.IntN(min(most, 300<<10))
	default:
		return rng.IntN(most)
	}
}
