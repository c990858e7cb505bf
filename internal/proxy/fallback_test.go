package proxy

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/accesslog"
	"culvert/internal/router"
	"culvert/internal/upstream"
)

// downhill makes routes to upstreams, each of which falls back to the next, also the last one, to which there is none.
func downhill(t testing.TB, upstreams ...*upstream.Upstream) *Routes {
	t.Helper()
	var list []router.L4Route
	var targets []Target
	for _, u := range upstreams {
		list = append(list, router.L4Route{Name: u.Name(), Upstream: u.Name(), Fallback: true})
		targets = append(targets, Target{Upstream: u})
	}
	table, err := router.NewL4(list)
	if err != nil {
		t.Fatal(err)
	}
	return NewRoutes(table, targets)
}

// serve sees a visitor without a socket through, and gives the record of that.
func serve(s Settings) accesslog.Record {
	near, far := net.Pipe()
	defer far.Close()
	records := accesslog.New(accesslog.Config{Records: 1})
	s.Name = "devices"
	NewTCP(TCPConfig{Settings: s, Records: records, Log: quiet()}).Serve(context.Background(), pipeEnd{near})
	return records.Find(accesslog.Query{})[0]
}

// hole is an upstream of one member that swallows connections. It says how many.
func hole(name string) (u *upstream.Upstream, asked *int) {
	asked = new(int)
	u = upstream.New(upstream.Config{Name: name})
	u.Add(upstream.Placed{Member: &told{name: name + "-1", dial: func(ctx context.Context, _ *upstream.Visit) (upstream.Dialed, error) {
		*asked++
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		<-ctx.Done()
		return upstream.Dialed{}, &upstream.DialError{Reason: upstream.TimedOut, Err: ctx.Err()}
	}}})
	return u, asked
}

// serves is an upstream whose member ends each connection at once.
func serves(name string) *upstream.Upstream {
	u := upstream.New(upstream.Config{Name: name})
	u.Add(upstream.Placed{Member: &told{name: name + "-1", dial: func(context.Context, *upstream.Visit) (upstream.Dialed, error) {
		near, far := net.Pipe()
		_ = far.Close()
		return upstream.Dialed{Conn: pipeEnd{near}}, nil
	}}})
	return u
}

// The first visitors find out that a route's upstream is a black hole, which costs the others nothing.
func TestVisitorsGoBelowABlackHoleAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, asked := hole("first")
		routes := downhill(t, first, serves("last"))
		for n := 1; n <= 6; n++ {
			r := serve(Settings{Routes: routes})
			want := "first-1: timeout after 1s, by route first"
			if n > 3 {
				want = "first: ejected"
			}
			if len(r.Tries) != 1 || r.Tries[0].Words(r.Tries[0].Took.String()) != want || r.Member != "last-1" {
				t.Errorf("visitor %d is at %q after %+v, want %s", n, r.Member, r.Tries, want)
			}
		}
		if *asked != 3 {
			t.Errorf("the black hole was asked %d times, want 3", *asked)
		}
		time.Sleep(time.Minute) // the goroutines that are kept for others end
	})
}

// A route has its upstream tried each time if there is no other below it, whatever it says of falling back.
func TestARouteWithoutOneBelowIsTriedEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		only, asked := hole("only")
		for range 5 {
			serve(Settings{Routes: downhill(t, only)})
		}
		if *asked != 5 {
			t.Errorf("the member was asked %d times, want 5", *asked)
		}
		time.Sleep(time.Minute)
	})
}

// Who is turned away has waited, too: for room in the queues of all upstreams on the way, or for a member to come.
func TestRecordsSayHowLongAVisitorWaitedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := func(name string, timeout time.Duration) *upstream.Upstream {
			u := upstream.New(upstream.Config{Name: name, Queue: upstream.Queue{Max: 1, Timeout: timeout}})
			u.Add(upstream.Placed{Member: &told{name: name + "-1", dial: func(context.Context, *upstream.Visit) (upstream.Dialed, error) {
				return upstream.Dialed{}, nil
			}}, MaxConns: 1})
			if _, err := u.Dial(t.Context(), &upstream.Visit{}); err != nil {
				t.Fatal(err)
			}
			return u
		}
		empty := upstream.New(upstream.Config{Name: "empty"})
		for _, tt := range []struct {
			name     string
			settings Settings
			want     time.Duration
			why      string
			last     accesslog.Try
		}{
			{
				"for room",
				Settings{Routes: downhill(t, full("a", 2*time.Second))},
				2 * time.Second, "no connection: queue_timeout",
				accesslog.Try{Member: "a", Reason: "queue_timeout", Took: 2 * time.Second},
			},
			{
				"in two queues",
				Settings{Routes: downhill(t, full("a", 2*time.Second), full("b", 3*time.Second))},
				5 * time.Second,
				"no connection: queue_timeout",
				accesslog.Try{Member: "b", Reason: "queue_timeout", Took: 3 * time.Second},
			},
			{
				"for room, and then for a member",
				Settings{Routes: downhill(t, full("a", 2*time.Second), empty), EmptyTimeout: 4 * time.Second},
				6 * time.Second, "no connection: no_member",
				accesslog.Try{Member: "empty", Reason: "no_member"},
			},
		} {
			r := serve(tt.settings)
			if r.Queued != tt.want || r.Why != tt.why {
				t.Errorf("%s: the record says %s and %q, want %s and %q", tt.name, r.Queued, r.Why, tt.want, tt.why)
			}
			if diff := cmp.Diff(tt.last, r.Tries[len(r.Tries)-1]); diff != "" {
				t.Errorf("%s: the last try (-want +got):\n%s", tt.name, diff)
			}
		}
		time.Sleep(time.Minute)
	})
}

// A black hole that is ejected is the last resort of a visitor whom nobody else serves.
func TestAnEjectedUpstreamIsTheLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, asked := hole("first")
		refuses := upstream.New(upstream.Config{Name: "refuses", Ejection: upstream.Ejection{After: -1}})
		refuses.Add(upstream.Placed{Member: failing("no", upstream.Refused, false)})
		routes := downhill(t, first, refuses)
		for n := 1; n <= 5; n++ {
			begun := time.Now()
			r := serve(Settings{Routes: routes})
			if took := time.Since(begun); took != time.Second || *asked != n || r.Why != "no connection: refused" {
				t.Errorf("visitor %d: after %s the black hole was asked %d times, and the record says %q", n, took, *asked, r.Why)
			}
		}
		empty := upstream.New(upstream.Config{Name: "empty"})
		begun := time.Now()
		if r := serve(Settings{Routes: downhill(t, first, empty), EmptyTimeout: 10 * time.Second}); r.Why != "no connection: no_member" || time.Since(begun) != 11*time.Second {
			t.Errorf("who waits for a member was sent away after %s: %q", time.Since(begun), r.Why)
		}
		time.Sleep(time.Minute)
	})
}

// A flow goes below an upstream whose members are all ejected, unless nobody is there.
func TestFlowsGoBelowABlackHoleAtOnce(t *testing.T) {
	service := serveDatagrams(t, "last", "127.0.0.1:0", named("last"))
	var asked atomic.Int64
	well := datagramsTo(service.addr())
	var mended atomic.Bool
	first := pool(&told{name: "hole", dial: func(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
		asked.Add(1)
		if mended.Load() {
			return well.Dial(ctx, v)
		}
		return upstream.Dialed{}, &upstream.DialError{Reason: upstream.TimedOut, Err: context.DeadlineExceeded}
	}})
	last := pool(well)
	_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: func(_ netip.Addr, _ uint32, from int) (*upstream.Upstream, int, bool, bool) {
		return []*upstream.Upstream{first, last, nil}[from], from, from == 0, from < 2
	}})
	for range 6 { // one after the other
		if got := ask(t, visitor(t, at), "a"); got != "last:a" {
			t.Errorf("got %q", got)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("the black hole was asked %d times, want 3", n)
	}
	last.SetHealth(well, false, nil)
	mended.Store(true)
	if got := ask(t, visitor(t, at), "b"); got != "last:b" || asked.Load() != 4 {
		t.Errorf("got %q, and the black hole was asked %d times; want it to be the last resort", got, asked.Load())
	}
}
