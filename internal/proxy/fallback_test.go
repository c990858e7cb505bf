package proxy

import (
	"context"
	"net"
	"strings"
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

// The first visitors find out that a route's upstream is a black hole, which costs the others nothing; but the upstream of the
// last route is asked each time, as there is nowhere else to go.
func TestARouteWithoutOneBelowIsTriedEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, askedFirst := hole("first")
		last, askedLast := hole("last")
		routes := downhill(t, first, last)
		for n := 1; n <= 6; n++ {
			r := serve(Settings{Routes: routes})
			want := "first-1: timeout after 1s, by route first; last-1: timeout after 1s"
			if n > 3 {
				want = "first: ejected; last-1: timeout after 1s"
			}
			var got []string
			for _, try := range r.Tries {
				got = append(got, try.Words(try.Took.String()))
			}
			if diff := cmp.Diff(want, strings.Join(got, "; ")); diff != "" {
				t.Errorf("visitor %d tried (-want +got):\n%s", n, diff)
			}
		}
		if *askedFirst != 3 || *askedLast != 6 {
			t.Errorf("the first was asked %d times and the last %d times, want 3 and 6", *askedFirst, *askedLast)
		}
		time.Sleep(time.Minute) // the goroutines that are kept for others end
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
