package upstream

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// place is a member whose dials go as it is told; it keeps the visits it saw.
type place struct {
	name   string
	err    error
	onDial func()
	visits []Visit
}

func (p *place) Name() string       { return p.name }
func (p *place) Protocol() Protocol { return Raw }

func (p *place) Dial(_ context.Context, v *Visit) (Dialed, error) {
	p.visits = append(p.visits, *v)
	if p.onDial != nil {
		p.onDial()
	}
	return Dialed{}, p.err
}

// newUpstream tries all members, as tunnels do.
func newUpstream(name string) *Upstream { return New(Config{Name: name, Retries: -1}) }

// memberOf is whose connection it is, nil if there is none.
func memberOf(d Dialed) Member {
	if d.Place == nil {
		return nil
	}
	return d.Place.Member()
}

func refusing(name string, r Reason) *place {
	return &place{name: name, err: &DialError{Member: name, Reason: r, Err: errors.New("no")}}
}

func names(members []Member) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.Name())
	}
	return out
}

func TestMembers(t *testing.T) {
	a, b, c := &place{name: "a"}, &place{name: "b"}, &place{name: "c"}
	u := newUpstream("tcp/2222")
	u.Add(Placed{Member: a})
	u.Add(Placed{Member: b})
	u.Add(Placed{Member: b})
	before := u.Members()
	u.Add(Placed{Member: c})
	u.Remove(a)
	u.Remove(a)
	if diff := cmp.Diff([]string{"a", "b"}, names(before)); diff != "" {
		t.Errorf("snapshot taken before a change (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b", "c"}, names(u.Members())); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if u.Name() != "tcp/2222" {
		t.Errorf("name is %q", u.Name())
	}
}

func TestCandidatesTakeTurns(t *testing.T) {
	u := newUpstream("x")
	for _, n := range []string{"a", "b", "c"} {
		u.Add(Placed{Member: &place{name: n}})
	}
	var firsts []string
	for range 6 {
		c := u.Candidates(nil)
		var order []string
		for i := range c.Len() {
			order = append(order, c.At(i).Name())
		}
		firsts = append(firsts, order[0])
		slices.Sort(order)
		if diff := cmp.Diff([]string{"a", "b", "c"}, order); diff != "" {
			t.Fatalf("an order leaves a member out (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "a", "b", "c"}, firsts); diff != "" {
		t.Errorf("first candidates (-want +got):\n%s", diff)
	}
}

func TestDialGoesOnOnlyWhileNothingWasSent(t *testing.T) {
	sent := &place{name: "sent", err: &DialError{Member: "sent", Reason: Lost, MaybeSent: true, Err: errors.New("cut")}}
	foreign := &place{name: "foreign", err: errors.New("something else")}
	tests := []struct {
		name    string
		members []Member
		asked   []string
		got     string // the member that gave the connection
		reason  Reason
		failed  []Reason
	}{
		{"no member", nil, nil, "", NoMember, []Reason{NoMember}},
		{"the first one gives it", []Member{&place{name: "a"}, &place{name: "b"}}, []string{"a"}, "a", "", nil},
		{"refused, then given", []Member{refusing("a", Refused), &place{name: "b"}}, []string{"a", "b"}, "b", "", []Reason{Refused}},
		{"all refuse: the last reason", []Member{refusing("a", Refused), refusing("b", TimedOut)}, []string{"a", "b"}, "", TimedOut, []Reason{Refused, TimedOut}},
		{"bytes may have been sent", []Member{sent, &place{name: "b"}}, []string{"sent"}, "", Lost, []Reason{Lost}},
		{"an error that certifies nothing", []Member{foreign, &place{name: "b"}}, []string{"foreign"}, "", TimedOut, []Reason{TimedOut}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpstream("x")
			var failed []Reason
			u.Reconfigure(Config{Name: "x", Retries: -1, OnFailedDial: func(_ Member, r Reason) { failed = append(failed, r) }})
			for _, m := range tt.members {
				u.Add(Placed{Member: m})
			}
			d, err := u.Dial(t.Context(), &Visit{ID: "1"})
			m := memberOf(d)
			if tt.got != "" && (err != nil || m.Name() != tt.got) {
				t.Errorf("dial gave %v, %v, want %s", m, err, tt.got)
			}
			if tt.got == "" && (err == nil || ReasonOf(err) != tt.reason) {
				t.Errorf("dial gave %v with reason %q, want %q", err, ReasonOf(err), tt.reason)
			}
			var asked []string
			for _, m := range tt.members {
				if len(m.(*place).visits) > 0 {
					asked = append(asked, m.Name())
				}
			}
			if diff := cmp.Diff(tt.asked, asked); diff != "" {
				t.Errorf("members asked (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.failed, failed); diff != "" {
				t.Errorf("failures heard of (-want +got):\n%s", diff)
			}
			sent.visits, foreign.visits = nil, nil
		})
	}
}

func TestDialStopsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a, b := refusing("a", Canceled), &place{name: "b"}
	a.onDial = cancel
	u := newUpstream("x")
	u.Add(Placed{Member: a})
	u.Add(Placed{Member: b})
	if _, err := u.Dial(ctx, &Visit{}); ReasonOf(err) != Canceled {
		t.Errorf("dial gave %v, want canceled", err)
	}
	if len(b.visits) != 0 {
		t.Error("another member was asked for a visitor that is gone")
	}
}

func TestPatienceWhileAnotherIsLeft(t *testing.T) {
	for _, tt := range []struct {
		name      string
		asked     time.Duration
		limit     time.Duration
		elsewhere bool
		want      time.Duration // of the first member
		last      time.Duration
	}{
		{"the least", 0, 0, false, time.Second, 0},
		{"what the caller allows, if more", 3 * time.Second, 0, false, 3 * time.Second, 0},
		{"with a limit: for the last as well", 0, time.Minute, false, time.Second, time.Minute},
		{"with another upstream: for the last as well", 0, 0, true, time.Second, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := refusing("a", Refused), refusing("b", Refused)
			u := newUpstream("x")
			u.Add(Placed{Member: a})
			u.Add(Placed{Member: b})
			v := &Visit{Patience: tt.asked, Limit: tt.limit, Elsewhere: tt.elsewhere}
			_, _ = u.Dial(t.Context(), v)
			if a.visits[0].Patience != tt.want || b.visits[0].Patience != tt.last {
				t.Errorf("patience is %v and %v, want %v and %v", a.visits[0].Patience, b.visits[0].Patience, tt.want, tt.last)
			}
			if v.Patience != tt.asked {
				t.Error("the caller's visit was changed")
			}
		})
	}
}

func BenchmarkCandidates(b *testing.B) {
	u := newUpstream("x")
	for _, n := range []string{"a", "b", "c"} {
		u.Add(Placed{Member: &place{name: n}})
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := u.Candidates(nil)
			for i := range c.Len() {
				_ = c.At(i)
			}
		}
	})
}

func TestCandidatesDoNotAllocate(t *testing.T) {
	u := newUpstream("x")
	u.Add(Placed{Member: &place{name: "a"}})
	u.Add(Placed{Member: &place{name: "b"}})
	if n := testing.AllocsPerRun(100, func() {
		c := u.Candidates(nil)
		_ = c.At(1)
	}); n != 0 {
		t.Errorf("candidates allocate %v times", n)
	}
}
