package upstream

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"culvert/internal/balancer"
	"culvert/internal/proxyproto"
)

// Config says how an upstream treats its members and its visitors.
type Config struct {
	Name   string
	Policy balancer.Policy // "" is round_robin
	// Retries is how many members are tried after the first one; negative: all of them.
	Retries int
	// Queue is where visitors wait while all members have as many connections as they may.
	Queue Queue
	// SlowStart is how long the share of a member grows that came back, or was added to a running upstream; 0: not at all.
	SlowStart time.Duration
	Ejection  Ejection
	// Emit is the PROXY header that services get whose member has no setting of its own, in place of what the visit says;
	// none if that is to count.
	Emit proxyproto.Emission

	// OnFailedDial hears of every member that did not give a connection, also when another one then did; the member is
	// nil when there was none to ask.
	OnFailedDial func(Member, Reason)
	// OnUsable is called when the upstream gets its first usable member or loses its last. Ejection never makes an
	// upstream unusable. Calls come one after the other, in order, and may use the upstream.
	OnUsable func(usable bool)
	// OnEjected hears of every ejection, like OnUsable.
	OnEjected func(m Member, reason Reason, until time.Time)
}

// Queue bounds the visitors that wait for a member. The zero Queue lets nobody wait.
type Queue struct {
	Max     int
	Timeout time.Duration // 5 s if zero
}

// Ejection is how members are left alone for a while that did not give connections several times in a row.
type Ejection struct {
	After int           // failures in a row; 3 if zero, negative: members are never ejected
	For   time.Duration // the first time, then twice as long each time until one gives a connection; 10 s if zero
	Most  time.Duration // at most; 5 min if zero
}

func (c Config) withDefaults() *Config {
	c.Queue.Timeout = cmp.Or(c.Queue.Timeout, 5*time.Second)
	c.Ejection.After = cmp.Or(c.Ejection.After, 3)
	c.Ejection.For = cmp.Or(c.Ejection.For, 10*time.Second)
	c.Ejection.Most = max(cmp.Or(c.Ejection.Most, 5*time.Minute), c.Ejection.For)
	return &c
}

// Placed is a member with its place among the others.
type Placed struct {
	Member   Member
	Weight   int  // its share relative to the others'; 0 counts as 1
	Backup   bool // has no visitors while another member that is no backup is usable
	MaxConns int  // connections at a time; 0: no limit
	Down     bool // is not usable until SetHealth says so
	// Account is what its open connections are counted under, in place of its name: those of a member that was removed, or is
	// about to be, count for the one of its account that takes its place.
	Account string
	// Rank is where it stands among the members: one of a lower rank comes before it, and of its own rank those that were there.
	Rank int
}

// MaxWeight is the greatest weight of a member.
const MaxWeight = 1 << 16

// Upstream is a named set of members and the order in which they are tried.
// It is safe for concurrent use; what a connection or request reads takes no lock, as long as nobody has to wait.
type Upstream struct {
	born  time.Time
	cfg   atomic.Pointer[Config]
	set   atomic.Pointer[set] // replaced whole, never changed
	turn  atomic.Uint64       // connections and requests so far
	queue queue
	told  teller

	mu     sync.Mutex // orders the writers of set, of seats' terms and of ejections
	byHand map[string]hand
	left   map[string]*atomic.Int64 // open connections of members that were removed, by account
}

type set struct {
	seats   []*seat
	members []Member
}

// New makes an upstream without members.
func New(cfg Config) *Upstream {
	u := &Upstream{born: time.Now(), byHand: make(map[string]hand), left: make(map[string]*atomic.Int64)}
	u.cfg.Store(cfg.withDefaults())
	u.set.Store(&set{})
	return u
}

// Reconfigure replaces the configuration. Members, their state and who waits stay, but for ejections where there are none any
// more.
func (u *Upstream) Reconfigure(cfg Config) {
	u.mu.Lock()
	u.cfg.Store(cfg.withDefaults())
	if cfg.Ejection.After < 0 {
		for _, s := range u.set.Load().seats {
			u.forgive(s)
		}
	}
	u.mu.Unlock()
	u.settle()
}

// Name is the upstream's name.
func (u *Upstream) Name() string { return u.cfg.Load().Name }

// Add adds members, which take part from the next connection on. One that is there already is not added twice.
func (u *Upstream) Add(all ...Placed) {
	u.mu.Lock()
	old := u.set.Load()
	seats := append(make([]*seat, 0, len(old.seats)+len(all)), old.seats...)
	for _, p := range all {
		if slices.Contains(old.members, p.Member) {
			continue
		}
		s := newSeat(p)
		u.inherit(s)
		u.reweigh(s)
		// Members with which an upstream begins have no others to leave the visitors to meanwhile.
		s.late = u.turn.Load() > 0
		u.setTerms(s, terms{down: p.Down, back: u.backNow(s.late && !p.Down)})
		seats = append(seats, s)
	}
	u.set.Store(inOrder(seats))
	u.mu.Unlock()
	u.settle()
}

// inOrder makes a set of seats, which it sorts by rank.
func inOrder(seats []*seat) *set {
	slices.SortStableFunc(seats, func(a, b *seat) int { return cmp.Compare(a.placed.Rank, b.placed.Rank) })
	members := make([]Member, len(seats))
	for i, s := range seats {
		members[i] = s.member
	}
	return &set{seats, members}
}

// Remove takes members out; their connections go on. A member that is not there is no fault.
func (u *Upstream) Remove(all ...Member) {
	gone := make(map[Member]bool, len(all))
	for _, m := range all {
		gone[m] = true
	}
	u.mu.Lock()
	maps.DeleteFunc(u.left, func(_ string, open *atomic.Int64) bool { return open.Load() == 0 })
	u.set.Store(inOrder(slices.DeleteFunc(slices.Clone(u.set.Load().seats), func(s *seat) bool {
		if gone[s.member] && s.open.Load() > 0 {
			u.left[s.placed.account()] = s.open
		}
		return gone[s.member]
	})))
	u.mu.Unlock()
	u.settle()
}

// inherit gives a new seat the connections of its account. The caller holds mu.
func (u *Upstream) inherit(s *seat) {
	account := s.placed.account()
	for _, other := range u.set.Load().seats {
		if other.placed.account() == account {
			s.open = other.open
			return
		}
	}
	if open := u.left[account]; open != nil {
		s.open = open
		delete(u.left, account)
	}
}

// Update gives a member that is there another place. Whether it is down, drained or ejected stays; a weight that was set by
// hand stays until the placed weight changes. A member that is not there is no fault.
func (u *Upstream) Update(p Placed) {
	u.mu.Lock()
	if s := u.seat(p.Member); s != nil {
		moved := s.placed.Rank != p.Rank
		s.placed = p
		u.reweigh(s)
		u.setTerms(s, *s.terms())
		if moved {
			u.set.Store(inOrder(slices.Clone(u.set.Load().seats)))
		}
	}
	u.mu.Unlock()
	u.settle()
}

// SetHealth tells what an active check found. A member that is not there is no fault.
func (u *Upstream) SetHealth(m Member, up bool, cause error) {
	u.mu.Lock()
	if s := u.seat(m); s != nil {
		if !up && cause != nil {
			s.trouble.Store(&trouble{time.Now(), cause})
		}
		if up && s.terms().down {
			u.forgive(s)
		}
		t := *s.terms()
		if up && t.down {
			t.back = u.backNow(s.late)
		}
		s.late = s.late || !up
		t.down = !up
		s.now.Store(&t)
	}
	u.mu.Unlock()
	u.settle()
}

// Members is the present set, in the order in which they were added. It must not be changed.
func (u *Upstream) Members() []Member { return u.set.Load().members }

// Usable says whether any member can be given a connection, or could if it had not as many as it may.
func (u *Upstream) Usable() bool {
	return slices.ContainsFunc(u.set.Load().seats, func(s *seat) bool { return s.usable(s.terms()) })
}

// seat is the member's seat, nil if it has none. The caller holds mu.
func (u *Upstream) seat(m Member) *seat {
	now := u.set.Load()
	if i := slices.Index(now.members, m); i >= 0 {
		return now.seats[i]
	}
	return nil
}

// settle has everybody know of a change. The caller does not hold mu.
func (u *Upstream) settle() {
	if u.cfg.Load().OnUsable != nil {
		u.mu.Lock()
		if usable := u.Usable(); u.told.usable.Swap(usable) != usable {
			cfg := u.cfg.Load()
			u.told.add(func() { cfg.OnUsable(usable) })
		}
		u.mu.Unlock()
	}
	u.told.tell()
	u.wake()
}

// now is a clock that knows no zero.
func (u *Upstream) now() time.Duration { return time.Since(u.born) + 1 }

// backNow is when a member's slow start begins; zero if it has none.
func (u *Upstream) backNow(slow bool) time.Duration {
	if !slow {
		return 0
	}
	return u.now()
}
