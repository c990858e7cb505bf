package upstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/balancer"
)

// model is what an upstream is to be like, in plain words: a list of members, and the visitors at them and before them.
type model struct {
	t    *testing.T
	u    *Upstream
	dice *rand.Rand
	log  []string // what was done

	retries  int
	members  []*modelMember
	hands    map[string]*modelHand
	open     map[string]int // by member's name, also of one that has gone
	visitors []*modelVisitor
	told     []bool
}

type modelMember struct {
	node   *node
	placed Placed
	down   bool
}

type modelHand struct {
	drain  bool
	weight int // -1: none
	of     int // the placed weight that it replaces
}

type modelVisitor struct {
	id    int
	leave context.CancelFunc
	done  bool
	told  bool // the model has seen how it ended
	d     Dialed
	err   error
}

func (m *model) usable(at *modelMember) bool {
	h := m.hand(at.node.name)
	return !at.down && !h.drain && h.weight != 0 && !at.node.gone.Load()
}

func (m *model) hand(name string) *modelHand {
	if h := m.hands[name]; h != nil {
		return h
	}
	return &modelHand{weight: -1}
}

// candidates are those who may have the next visitor at first: without room the visitor waits for them.
func (m *model) candidates() (all, withRoom []*modelMember) {
	for _, backup := range []bool{false, true} {
		for _, at := range m.members {
			if m.usable(at) && at.placed.Backup == backup {
				all = append(all, at)
				if most := at.placed.MaxConns; most == 0 || m.open[at.node.name] < most {
					withRoom = append(withRoom, at)
				}
			}
		}
		if len(all) > 0 {
			break
		}
	}
	return all, withRoom
}

// others are those who may be tried for a visitor whom the first of all failed.
func (m *model) others() (n int) {
	for _, at := range m.members {
		if most := at.placed.MaxConns; m.usable(at) && (most == 0 || m.open[at.node.name] < most) {
			n++
		}
	}
	return n
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nafter\n  %s", fmt.Sprintf(format, args...), strings.Join(m.log, "\n  "))
}

func (m *model) did(format string, args ...any) { m.log = append(m.log, fmt.Sprintf(format, args...)) }

// pick is one of the members, nil if there is none.
func (m *model) pick() *modelMember {
	if len(m.members) == 0 {
		return nil
	}
	return m.members[m.dice.IntN(len(m.members))]
}

func (m *model) placed(n *node) Placed {
	return Placed{Member: n, Weight: 1 + m.dice.IntN(4), Backup: m.dice.IntN(4) == 0, MaxConns: m.dice.IntN(4), Down: m.dice.IntN(6) == 0}
}

// step changes something.
func (m *model) step() {
	at := m.pick()
	switch what := m.dice.IntN(20); {
	case what < 8:
		m.visit()
	case what < 11:
		m.release()
	case what == 11:
		m.abandon()
	case what == 12 || at == nil:
		m.add()
	case what == 13:
		m.did("remove %s", at.node.name)
		m.members = slices.DeleteFunc(m.members, func(o *modelMember) bool { return o == at })
		m.u.Remove(at.node)
	case what == 14:
		p := m.placed(at.node)
		m.did("update %s: %+v", p.Member.Name(), p)
		m.replace(at, p)
		m.u.Update(p)
	case what == 15:
		at.down = !at.down
		m.did("%s down: %t", at.node.name, at.down)
		m.u.SetHealth(at.node, !at.down, errors.New("x"))
	case what == 16:
		h := *m.hand(at.node.name)
		h.drain = !h.drain
		m.hands[at.node.name] = &h
		m.did("%s drained: %t", at.node.name, h.drain)
		_ = m.u.SetDrain(at.node.name, h.drain)
	case what == 17:
		h := *m.hand(at.node.name)
		h.weight, h.of = m.dice.IntN(3), at.placed.Weight
		m.hands[at.node.name] = &h
		m.did("%s by hand to %d", at.node.name, h.weight)
		_ = m.u.SetWeight(at.node.name, h.weight)
	case what == 18:
		at.node.gone.Store(!at.node.gone.Load())
		m.did("%s gone: %t", at.node.name, at.node.gone.Load())
		m.u.settle()
	default:
		at.node.broken.Store(!at.node.broken.Load())
		m.did("%s broken: %t", at.node.name, at.node.broken.Load())
	}
}

func (m *model) add() {
	name := string(rune('a' + m.dice.IntN(6)))
	if slices.ContainsFunc(m.members, func(at *modelMember) bool { return at.node.name == name }) {
		return
	}
	p := m.placed(&node{name: name})
	m.did("add %s: %+v", name, p)
	at := &modelMember{node: p.Member.(*node), down: p.Down}
	m.members = append(m.members, at)
	m.replace(at, p)
	m.u.Add(p)
}

// replace gives a member another place. A weight that was set by hand for another one than this ends with that.
func (m *model) replace(at *modelMember, p Placed) {
	at.placed = p
	if h := m.hand(at.node.name); h.weight >= 0 && h.of != p.Weight {
		h.weight = -1
	}
}

func (m *model) visit() {
	queued := m.waiting()
	ctx, leave := context.WithCancel(m.t.Context())
	v := &modelVisitor{id: len(m.visitors), leave: leave}
	m.visitors = append(m.visitors, v)
	m.did("visitor %d", v.id)
	all, withRoom := m.candidates()
	others := m.others()
	go func() {
		v.d, v.err = m.u.Dial(ctx, &Visit{ID: fmt.Sprint(v.id)})
		v.done = true
	}()
	synctest.Wait()
	switch {
	case queued > 0 || len(all) > 0 && len(withRoom) == 0:
		if v.done {
			m.fatalf("visitor %d got %v, %v, want it to wait", v.id, v.d.Place, v.err)
		}
		return
	case len(all) == 0:
		if ReasonOf(v.err) != NoMember {
			m.fatalf("visitor %d got %v, %v without a member", v.id, v.d.Place, v.err)
		}
	case !v.done:
		m.fatalf("visitor %d waits, with room at %d members", v.id, len(withRoom))
	}
	m.ended(v, withRoom, others)
}

// ended checks what came of a visitor who found a place at one of the members with room.
func (m *model) ended(v *modelVisitor, withRoom []*modelMember, others int) {
	v.told = true
	var failed *DialError
	if errors.As(v.err, &failed) {
		if failed.Reason == NoMember {
			return
		}
		if n := len(failed.Tries); failed.Reason != Refused || n != min(others, 1+m.retries) {
			m.fatalf("visitor %d: %v after %d tries, with %d members", v.id, v.err, n, others)
		}
		m.tried(v, failed.Tries, "")
		return
	}
	name := v.d.Place.Member().Name()
	m.tried(v, v.d.Tries, name)
	if len(v.d.Tries) == 0 && !slices.ContainsFunc(withRoom, func(at *modelMember) bool { return at.node.name == name }) {
		m.fatalf("visitor %d is at %s, who was not to have it", v.id, name)
	}
	m.open[name]++
	for _, at := range m.members {
		if at.node == v.d.Place.Member() && at.placed.MaxConns > 0 && m.open[name] > at.placed.MaxConns {
			m.fatalf("visitor %d is one too many at %s", v.id, name)
		}
	}
}

// tried checks that those who were tried are different ones, and all refuse.
func (m *model) tried(v *modelVisitor, tries []Try, served string) {
	seen := map[string]bool{served: true}
	for _, try := range tries {
		if seen[try.Member] {
			m.fatalf("visitor %d tried %v, and is at %q", v.id, tries, served)
		}
		seen[try.Member] = true
		if i := slices.IndexFunc(m.members, func(at *modelMember) bool { return at.node.name == try.Member }); i < 0 || !m.members[i].node.broken.Load() {
			m.fatalf("visitor %d tried %s, which does not refuse", v.id, try.Member)
		}
	}
}

// release has one visitor end.
func (m *model) release() {
	at := slices.IndexFunc(m.visitors, func(v *modelVisitor) bool { return v.told && v.err == nil && v.d.Place != nil })
	if at < 0 {
		return
	}
	if n := m.dice.IntN(len(m.visitors)); m.visitors[n].told && m.visitors[n].d.Place != nil {
		at = n
	}
	v := m.visitors[at]
	m.did("visitor %d ends at %s", v.id, v.d.Place.Member().Name())
	m.open[v.d.Place.Member().Name()]--
	place := v.d.Place
	v.d.Place = nil
	place.Release()
}

// abandon has one who waits leave.
func (m *model) abandon() {
	for _, v := range m.visitors {
		if !v.done && m.dice.IntN(3) == 0 {
			m.did("visitor %d leaves the queue", v.id)
			v.leave()
			synctest.Wait()
			if ReasonOf(v.err) != Canceled || !v.done {
				m.fatalf("visitor %d left and got %v", v.id, v.err)
			}
			v.told = true
			return
		}
	}
}

func (m *model) waiting() (n int) {
	for _, v := range m.visitors {
		if !v.done {
			n++
		}
	}
	return n
}

// check compares what is with what is to be.
func (m *model) check() {
	synctest.Wait()
	waits := false
	for _, v := range m.visitors { // in the order of their coming
		if v.done && waits && !v.told {
			m.fatalf("visitor %d has overtaken one who waits", v.id)
		}
		waits = waits || !v.done
		if v.done && !v.told {
			m.served(v)
		}
	}
	all, withRoom := m.candidates()
	if n := m.waiting(); n != m.u.Waiting() {
		m.fatalf("%d wait, want %d", m.u.Waiting(), n)
	} else if n > 0 && (len(withRoom) > 0 || len(all) == 0) {
		m.fatalf("%d wait, with room at %d of %d members", n, len(withRoom), len(all))
	}
	if want := slices.ContainsFunc(m.members, m.usable); m.u.Usable() != want || len(m.told) > 0 && m.told[len(m.told)-1] != want || len(m.told) == 0 && want {
		m.fatalf("usable is %t, and told was %v, want %t", m.u.Usable(), m.told, want)
	}
	if len(m.told) > 1 && m.told[len(m.told)-1] == m.told[len(m.told)-2] {
		m.fatalf("told twice: %v", m.told)
	}
	places := m.u.Places()
	if len(places) != len(m.members) {
		m.fatalf("%d places, want %d", len(places), len(m.members))
	}
	for i, p := range places {
		at := m.members[i]
		h := m.hand(at.node.name)
		weight := at.placed.Weight
		if h.weight >= 0 {
			weight = h.weight
		}
		if p.Name != at.node.name || p.Open != m.open[p.Name] || p.Usable != m.usable(at) || p.Weight != weight || p.Draining != h.drain || p.Down != at.down {
			m.fatalf("%s is %+v, want weight %d, %d open, drained %t, down %t", at.node.name, p, weight, m.open[p.Name], h.drain, at.down)
		}
	}
}

// served checks one who came from the queue.
func (m *model) served(v *modelVisitor) {
	_, withRoom := m.candidates()
	switch {
	case v.err == nil && len(withRoom) == 0:
		m.fatalf("visitor %d is at %s, without room", v.id, v.d.Place.Member().Name())
	case ReasonOf(v.err) == NoMember:
		if all, _ := m.candidates(); len(all) > 0 {
			m.fatalf("visitor %d was sent away, with members to wait for", v.id)
		}
	}
	if v.err == nil {
		m.ended(v, withRoom, m.others())
		return
	}
	v.told = true
}

// TestUpstreamIsLikeItsModel does things by chance, and each time compares the whole of what can be seen with a model that
// is too simple to be wrong. One thing happens at a time: what happens at once is TestEverythingAtOnce's.
func TestUpstreamIsLikeItsModel(t *testing.T) {
	for seed := range uint64(1000) {
		policy := balancer.Policies()[seed%5]
		synctest.Test(t, func(t *testing.T) {
			m := &model{
				t: t, dice: rand.New(rand.NewPCG(seed, 1)), retries: int(seed % 3), hands: make(map[string]*modelHand), open: make(map[string]int),
			}
			m.did("seed %d: %s with %d retries", seed, policy, m.retries)
			m.u = New(Config{
				Name: "app", Policy: policy, Retries: m.retries, Queue: Queue{Max: 1000, Timeout: time.Hour}, Ejection: Ejection{After: -1},
				OnUsable: func(is bool) { m.told = append(m.told, is) },
			})
			for range 200 {
				m.step()
				m.check()
			}
			for _, v := range m.visitors {
				v.leave()
			}
			synctest.Wait()
		})
	}
}

// TestEjectionKeepsItsPromises breaks and mends members by chance over hours: a visitor finds a member whenever one is well,
// half of the members at most are ejected, who is ejected is asked only by the one whose turn it is, or when all others fail,
// and when all are well nobody is left alone for long.
func TestEjectionKeepsItsPromises(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 2))
			var u *Upstream
			ejected := func() (n int) {
				for _, p := range u.Places() {
					if p.EjectedUntil.After(time.Now()) {
						n++
					}
				}
				return n
			}
			n := 1 + dice.IntN(6)
			u, all := nodes(Config{
				Retries: -1, Policy: balancer.Policies()[seed%5],
				OnEjected: func(m Member, _ Reason, _ time.Time) {
					if e := ejected(); 2*e > n {
						t.Errorf("seed %d: %d of %d are ejected", seed, e, n)
					}
				},
			}, n)
			asked := make([]int64, n)
			for range 400 {
				time.Sleep(time.Duration(dice.IntN(8000)) * time.Millisecond)
				if dice.IntN(6) == 0 {
					m := all[dice.IntN(n)]
					m.broken.Store(!m.broken.Load())
				}
				left, wells := make([]bool, n), 0
				for i, p := range u.Places() {
					left[i] = p.EjectedUntil.After(time.Now())
					if asked[i] = all[i].dials.Load(); !all[i].broken.Load() {
						wells++
					}
				}
				d, err := u.Dial(t.Context(), &Visit{})
				if wells > 0 && err != nil {
					t.Fatalf("seed %d: %v with %d of %d members well", seed, err, wells, n)
				}
				d.Place.Release()
				others := 0
				for i := range all {
					if !left[i] && all[i].dials.Load() == asked[i] {
						others++
					}
				}
				for i := range all {
					if left[i] && all[i].dials.Load() > asked[i] && others > 0 {
						t.Fatalf("seed %d: an ejected member was asked before %d others", seed, others)
					}
				}
			}
			for _, m := range all {
				m.broken.Store(false)
			}
			time.Sleep(5 * time.Minute)
			for range 10 * n {
				d, err := u.Dial(t.Context(), &Visit{Source: netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(dice.IntN(256))}), 1)})
				if err != nil {
					t.Fatal(err)
				}
				d.Place.Release()
			}
			if e := ejected(); e > 0 {
				t.Errorf("seed %d: %d of %d are ejected although all are well", seed, e, n)
			}
		})
	}
}
