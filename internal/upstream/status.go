package upstream

import "time"

// PlaceState is how a member stands, for status, metrics and explanations.
type PlaceState struct {
	Member       Member
	Name         string
	Weight       int // 0: set by hand, no new connections
	Backup       bool
	Open         int    // connections and requests now
	MaxConns     int    // 0: no limit
	Total        uint64 // connections and requests so far, failed ones too
	Failed       uint64 // tries that gave no connection
	Usable       bool   // may be given connections, if it has room and is not ejected
	Draining     bool
	Down         bool // by an active check
	LastError    string
	LastErrorAt  time.Time
	EjectedUntil time.Time // or until one visitor has found out how it is; zero if it is not ejected
	Suspect      bool
}

// Places is how all members stand, in the order in which they were added. It takes no lock.
func (u *Upstream) Places() []PlaceState {
	seats, now := u.set.Load().seats, u.now()
	places := make([]PlaceState, len(seats))
	for i, s := range seats {
		t := s.terms()
		p := &places[i]
		*p = PlaceState{
			Member: s.member, Name: s.name, Weight: int(t.weight), Backup: t.backup, Open: int(s.open.Load()), MaxConns: int(t.maxConns),
			Total: s.total.Load(), Failed: s.failed.Load(), Usable: s.usable(t), Draining: t.draining, Down: t.down,
			Suspect: s.suspect(),
		}
		if until := s.alone(); now < until {
			p.EjectedUntil = u.born.Add(until - 1) // see now
		}
		if last := s.trouble.Load(); last != nil {
			p.LastError, p.LastErrorAt = last.err.Error(), last.at
		}
	}
	return places
}

// Waiting is how many visitors wait for a member.
func (u *Upstream) Waiting() int { return int(u.queue.length.Load()) }
