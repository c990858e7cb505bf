package dataplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/accesslog"
	"culvert/internal/admin"
	"culvert/internal/config/plan"
	"culvert/internal/control"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

func TestRoutesBySourceAndTurns(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, devices, map[string]string{"addr": addr, "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}))
	for i := range 6 {
		if got, want := visit(t, "127.0.0.2", addr).name, fmt.Sprintf("app%d", i%2+1); got != want {
			t.Errorf("visitor %d: got %s, want %s", i, got, want)
		}
		if got := visit(t, "127.0.0.140", addr).name; got != "debug" {
			t.Errorf("diverted visitor %d: got %s, want debug", i, got)
		}
	}
	state := d.State()
	if got := state.Entrypoints[0]; got.Total != 12 || !got.Listening || got.Routes[0].Total != 6 || got.Routes[1].Total != 6 {
		t.Errorf("got %+v", got)
	}
	await(t, "12 records", func() bool { return len(d.cfg.Records.Find(accesslog.Query{Entrypoint: "devices"})) == 12 })
	r := d.cfg.Records.Find(accesslog.Query{Source: netip.MustParsePrefix("127.0.0.140/32"), Limit: 1})[0]
	if r.Route != "debug-box" || r.Upstream != "debug" || r.Member == "" || r.Protocol != "tcp" {
		t.Errorf("got %+v", r)
	}
}

func TestAReloadTouchesNothingThatIsOpen(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}
	apply(t, d, read(t, devices, vars))
	onDebug, onApp := visit(t, "127.0.0.140", vars["addr"]), visit(t, "127.0.0.2", vars["addr"])
	// No divert any more, one member less, another one more.
	apply(t, d, read(t, `
entrypoints:
  - {name: things, addr: $addr, routes: [{upstream: app}]}
upstreams:
  - {name: app, balance: first, members: [{address: "$app3"}, {address: "$app2"}]}
`, map[string]string{"addr": vars["addr"], "app2": vars["app2"], "app3": named(t, "app3")}))
	if !onDebug.hears("still") || !onApp.hears("there") {
		t.Error("a reload broke an open connection")
	}
	for range 3 {
		if got := visit(t, "127.0.0.140", vars["addr"]).name; got != "app3" {
			t.Errorf("got %s, want app3", got)
		}
	}
	if s := d.State(); len(s.Entrypoints) != 1 || s.Entrypoints[0].Name != "things" || len(s.Upstreams) != 1 || len(s.Upstreams[0].Members) != 2 {
		t.Errorf("got %+v", s)
	}
	// And none at all.
	apply(t, d, plan.Plan{})
	if !refuses(vars["addr"]) || !onDebug.hears("still") {
		t.Error("an entrypoint that is gone is open, or took its connections along")
	}
}

func TestAChangeThatCannotBeMadeChangesNothing(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}
	apply(t, d, read(t, devices, vars))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before := d.State()
	err = d.Apply(read(t, `
entrypoints:
  - {name: other, addr: "$other", routes: [{upstream: app}]}
  - {name: taken, addr: "$taken", routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: "127.0.0.1:1"}]}
`, map[string]string{"other": free(t, "tcp"), "taken": taken.Addr().String()}))
	if err == nil || !strings.Contains(err.Error(), "taken") || !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v, want an error that names the entrypoint", err)
	}
	if got := visit(t, "127.0.0.2", vars["addr"]).name; got != "app1" {
		t.Errorf("got %s, want app1", got)
	}
	after := d.State()
	if len(after.Entrypoints) != len(before.Entrypoints) || len(after.Upstreams) != len(before.Upstreams) {
		t.Errorf("got %+v, want %+v", after, before)
	}
}

func TestAnEntrypointMovesWithinItsPort(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	_, port, _ := net.SplitHostPort(addr)
	text := `
entrypoints: [{name: a, addr: "$addr", routes: [{upstream: app}]}]
upstreams: [{name: app, members: [{address: "$app"}]}]
`
	app := named(t, "app")
	apply(t, d, read(t, text, map[string]string{"addr": ":" + port, "app": app}))
	apply(t, d, read(t, text, map[string]string{"addr": addr, "app": app}))
	await(t, "the narrower address", func() bool { v, err := tryVisit(t, "127.0.0.1", addr); return err == nil && v.name == "app" })
}

// client is a member that dials a service, as a client of a tunnel does, and that may be away.
type client struct {
	*upstream.Static
	away, silent atomic.Bool
	emit         atomic.Pointer[proxyproto.Emission] // what the last visit wished
}

func (c *client) Usable() bool { return !c.away.Load() }

func (c *client) Dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	c.emit.Store(new(v.Emit))
	if c.silent.Load() {
		<-ctx.Done()
		return upstream.Dialed{}, &upstream.DialError{Reason: upstream.TimedOut, Err: ctx.Err()}
	}
	return c.Static.Dial(ctx, v)
}

func newClient(name, addr string) *client {
	return &client{Static: upstream.NewStatic(upstream.StaticConfig{Name: name, Network: "tcp", Address: addr})}
}

func offer(t testing.TB, d *DataPlane, name string, m upstream.Member) control.Publication {
	t.Helper()
	n, err := tunnel.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Publish(control.Offered{Name: n, Member: m})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The header that the file wants is what a tunnel's client is told, for it is the client that sends it.
func TestClientsLearnWhichPROXYHeaderTheirServicesGet(t *testing.T) {
	d := start(t)
	const text = `
entrypoints:
  - {name: tcp, addr: "$tcp", routes: [{upstream: app}]}
  - {name: udp, protocol: udp, addr: "$udp", routes: [{upstream: log}]}
upstreams:
  - {name: app, proxy_protocol: $header, members: [{tunnel: name/app}]}
  - {name: log, proxy_protocol: {version: v2, udp_header: first}, members: [{tunnel: name/log}]}
`
	vars := map[string]string{"tcp": free(t, "tcp"), "udp": free(t, "udp"), "header": "{version: v2, tlvs: [unique_id]}"}
	apply(t, d, read(t, text, vars))
	app := newClient("app", named(t, "app"))
	log := &client{Static: upstream.NewStatic(upstream.StaticConfig{Name: "log", Network: "udp", Address: echoes(t, "log")})}
	offer(t, d, "name/app", app)
	offer(t, d, "name/log", log)
	await(t, "a visit", func() bool { _, _ = tryVisit(t, "127.0.0.1", vars["tcp"]); return app.emit.Load() != nil })
	if got, want := app.emit.Load(), (proxyproto.Emission{Version: proxyproto.V2, UniqueID: true}); got == nil || *got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_ = flow(t, "127.0.0.1", vars["udp"])("x")
	if got, want := log.emit.Load(), (proxyproto.Emission{Version: proxyproto.V2, FirstDatagram: true}); got == nil || *got != want {
		t.Errorf("of datagrams: got %+v, want %+v", got, want)
	}
	vars["header"] = "v1"
	apply(t, d, read(t, text, vars))
	_, _ = tryVisit(t, "127.0.0.1", vars["tcp"])
	if got, want := *app.emit.Load(), (proxyproto.Emission{Version: proxyproto.V1}); got != want {
		t.Errorf("after a reload: got %+v, want %+v", got, want)
	}
}

func TestTheFileAndClientsShareUpstreams(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, `
entrypoints: [{name: in, addr: "$addr", routes: [{upstream: mixed}]}]
upstreams: [{name: mixed, members: [{tunnel: name/laptop, weight: 2}, {address: "$fixed", backup: true}]}]
`, map[string]string{"addr": addr, "fixed": named(t, "fixed")}))
	if got := visit(t, "127.0.0.1", addr).name; got != "fixed" {
		t.Errorf("without a client: got %s, want fixed", got)
	}
	p := offer(t, d, "name/laptop", newClient("laptop", named(t, "laptop")))
	if got := visit(t, "127.0.0.1", addr).name; got != "laptop" {
		t.Errorf("with a client: got %s, want laptop", got)
	}
	p.(control.HealthPublication).Health(false, errors.New("its check fails"))
	if got := visit(t, "127.0.0.1", addr).name; got != "fixed" {
		t.Errorf("with a client whose service is down: got %s, want fixed", got)
	}
	p.(control.HealthPublication).Health(true, nil)
	if got := visit(t, "127.0.0.1", addr).name; got != "laptop" {
		t.Errorf("with the service back: got %s, want laptop", got)
	}
	p.Withdraw()
	if got := visit(t, "127.0.0.1", addr).name; got != "fixed" {
		t.Errorf("after the client: got %s, want fixed", got)
	}
	if got := len(d.State().Upstreams); got != 1 {
		t.Errorf("got %d upstreams, want that of the file alone", got)
	}
}

func TestAPortFollowsItsMembers(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	_, port, _ := net.SplitHostPort(addr)
	name := "tcp/" + port
	p := offer(t, d, name, newClient("a", named(t, "a")))
	if got := visit(t, "127.0.0.1", addr).name; got != "a" {
		t.Fatalf("got %s, want a", got)
	}
	p.(control.HealthPublication).Health(false, errors.New("down"))
	await(t, "the port to close", func() bool { return refuses(addr) })
	if err := d.Ready(name); err == nil {
		t.Error("a tunnel without a usable member is ready")
	}
	p.(control.HealthPublication).Health(true, nil)
	await(t, "the port to open", func() bool { return !refuses(addr) })
	if err := d.Ready(name); err != nil {
		t.Error(err)
	}
	p.Withdraw()
	await(t, "the port to close for good", func() bool { return refuses(addr) && len(d.State().Entrypoints) == 0 })
	if got := d.State().Upstreams; len(got) != 0 {
		t.Errorf("got %+v, want nothing left", got)
	}
}

func TestAPortClosesForAClientThatComesWithItsServiceDown(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	_, port, _ := net.SplitHostPort(addr)
	offer(t, d, "tcp/"+port, newClient("a", named(t, "a"))).Withdraw()
	p, err := d.Publish(control.Offered{
		Name: mustName(t, "tcp/"+port), Member: newClient("b", named(t, "b")), Offer: tunnel.Offer{Down: "its check has not ended"},
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the port to close", func() bool { return refuses(addr) })
	p.(control.HealthPublication).Health(true, nil)
	await(t, "the port to open", func() bool { return !refuses(addr) })
}

func TestTheEndOfTheDataPlaneWaitsForVisitors(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, `
entrypoints: [{name: in, addr: "$addr", routes: [{upstream: app}]}]
upstreams: [{name: app, members: [{address: "$app"}], health: {tcp: {}}}]
`, map[string]string{"addr": addr, "app": named(t, "app")}))
	v := visit(t, "127.0.0.1", addr)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); d.Shutdown(ctx) }()
	await(t, "the port to close", func() bool { return refuses(addr) })
	if !v.hears("still") || d.Open() != 1 {
		t.Errorf("the visitor was cut, or is not counted: %d open", d.Open())
	}
	cancel()
	<-ended
	if _, err := v.lines.ReadString('\n'); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("out of time: got %v, want a reset", err)
	}
}

func TestWhatHappensWhileNoMemberIsUsable(t *testing.T) {
	d := start(t)
	vars := map[string]string{"refuse": free(t, "tcp"), "reset": free(t, "tcp"), "queue": free(t, "tcp")}
	apply(t, d, read(t, `
entrypoints:
  - {name: refuse, addr: "$refuse", routes: [{upstream: name/x}]}
  - {name: reset, addr: "$reset", when_empty: reset, routes: [{upstream: name/x}]}
  - {name: queue, addr: "$queue", when_empty: queue, routes: [{upstream: name/x}]}
`, vars))
	await(t, "the port that refuses", func() bool { return refuses(vars["refuse"]) })
	if err := d.Ready(""); err != nil {
		t.Errorf("not ready although all that can be open is: %v", err)
	}
	if err := d.Ready("refuse"); err == nil {
		t.Error("an entrypoint without a usable member is ready")
	}
	if _, err := tryVisit(t, "127.0.0.1", vars["reset"]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: got %v, want a reset", err)
	}
	waits := make(chan string)
	go func() {
		v, _ := tryVisit(t, "127.0.0.1", vars["queue"])
		if v == nil {
			waits <- ""
			return
		}
		waits <- v.name
	}()
	await(t, "the visitor to wait", func() bool {
		for _, e := range d.State().Entrypoints {
			if e.Name == "queue" {
				return e.Open == 1
			}
		}
		return false
	})
	offer(t, d, "name/x", newClient("x", named(t, "x")))
	if got := <-waits; got != "x" {
		t.Errorf("the visitor that waited got %q, want x", got)
	}
	await(t, "the port that refused to open", func() bool { return !refuses(vars["refuse"]) })
	if got := visit(t, "127.0.0.1", vars["refuse"]).name; got != "x" {
		t.Errorf("the port that was closed: got %q, want x", got)
	}
}

// A limit holds for a member whose settings a reload has changed, with the connections of before.
func TestALimitHoldsThroughAReloadThatChangesTheMember(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "app": named(t, "app"), "timeout": "3s"}
	const text = `
entrypoints: [{name: app, addr: "$addr", routes: [{upstream: app}]}]
upstreams: [{name: app, members: [{address: "$app", max_conns: 1}], connect: {timeout: $timeout}}]
`
	apply(t, d, read(t, text, vars))
	kept := visit(t, "127.0.0.1", vars["addr"])
	vars["timeout"] = "2s"
	apply(t, d, read(t, text, vars))
	if v, err := tryVisit(t, "127.0.0.1", vars["addr"]); err == nil {
		t.Errorf("%s has two connections, and may have one", v.name)
	}
	if m := d.State().Upstreams[0].Members[0]; m.Open != 1 {
		t.Errorf("the state has %d open, want 1", m.Open)
	}
	_ = kept.Close()
	await(t, "the place that came free", func() bool { _, err := tryVisit(t, "127.0.0.1", vars["addr"]); return err == nil })
}

func TestARouteThatIsDownFailsOrFallsBack(t *testing.T) {
	d := start(t)
	vars := map[string]string{"fail": free(t, "tcp"), "fall": free(t, "tcp"), "gone": free(t, "tcp"), "app": named(t, "app")}
	apply(t, d, read(t, `
entrypoints:
  - {name: fail, addr: "$fail", routes: [{match: {source: [127.0.0.140]}, upstream: gone}, {upstream: app}]}
  - {name: fall, addr: "$fall", routes: [{match: {source: [127.0.0.140]}, upstream: gone, on_down: fallback}, {upstream: app}]}
upstreams:
  - {name: gone, members: [{address: "$gone"}]}
  - {name: app, members: [{address: "$app"}]}
`, vars))
	if _, err := tryVisit(t, "127.0.0.140", vars["fail"]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("fail: got %v, want a reset", err)
	}
	v := visit(t, "127.0.0.140", vars["fall"])
	if v.name != "app" || !v.hears("hello") {
		t.Errorf("fallback: got %q, want app", v.name)
	}
	var r []accesslog.Record
	await(t, "the record of the failure", func() bool { r = d.cfg.Records.Find(accesslog.Query{Entrypoint: "fail"}); return len(r) > 0 })
	if len(r) != 1 || r[0].Member != "" || len(r[0].Tries) != 1 || r[0].Tries[0].Reason != "refused" || len(r[0].Candidates) != 1 {
		t.Errorf("record of the failure: got %+v", r)
	}
}

func divertOf(t testing.TB, d *DataPlane, m upstream.Member, want control.Divert) (control.Publication, error) {
	t.Helper()
	return d.Publish(control.Offered{
		Name: tunnel.DivertName(m.Name()), Member: m, Divert: &want, End: func(string) {}, MayDivert: func(string) bool { return true },
		Offer: tunnel.Offer{Tunnel: "divert/" + m.Name()},
	})
}

func TestADivertTakesItsSourceAndGivesItBack(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}
	apply(t, d, read(t, devices, vars))
	before := visit(t, "127.0.0.3", vars["addr"])
	laptop := newClient("laptop", named(t, "laptop"))
	source := []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}
	p, err := divertOf(t, d, laptop, control.Divert{Entrypoint: "devices", Sources: source, Percent: 100})
	if err != nil {
		t.Fatal(err)
	}
	diverted := visit(t, "127.0.0.3", vars["addr"])
	if diverted.name != "laptop" {
		t.Errorf("got %s, want laptop", diverted.name)
	}
	if got := visit(t, "127.0.0.2", vars["addr"]).name; got == "laptop" {
		t.Error("somebody else was diverted")
	}
	if protocol, open, total := p.(control.DivertPublication).Carried(); protocol != "tcp" || open != 1 || total != 1 {
		t.Errorf("got %s %d %d, want tcp 1 1", protocol, open, total)
	}
	// A laptop that does not answer holds a visitor up for a second, and one that refuses not at all.
	laptop.silent.Store(true)
	begun := time.Now()
	if v := visit(t, "127.0.0.3", vars["addr"]); !strings.HasPrefix(v.name, "app") || !v.hears("hello") {
		t.Errorf("with a laptop that does not answer: got %s, want a member of app", v.name)
	}
	// How much more than a second it takes is the machine's matter: the visitor's own patience is the bound.
	if took := time.Since(begun); took < 900*time.Millisecond {
		t.Errorf("a laptop that does not answer held the visitor up for %s, want about a second", took)
	}
	// A reload does not end it.
	laptop.silent.Store(false)
	apply(t, d, read(t, devices, vars))
	if got := visit(t, "127.0.0.3", vars["addr"]).name; got != "laptop" {
		t.Errorf("after a reload: got %s, want laptop", got)
	}
	p.Withdraw()
	if got := visit(t, "127.0.0.3", vars["addr"]).name; !strings.HasPrefix(got, "app") {
		t.Errorf("after the divert: got %s, want a member of app", got)
	}
	if !before.hears("still") || !diverted.hears("still") {
		t.Error("a divert touched open connections")
	}
	if _, err := divertOf(t, d, laptop, control.Divert{Entrypoint: "device"}); err == nil || !strings.Contains(err.Error(), "devices") {
		t.Errorf("a divert of an unknown entrypoint: got %v, want the names of those that there are", err)
	}
}

// A laptop that answers nothing holds up its first visitors, and then nobody; one who may not go elsewhere waits each time.
func TestABlackHoleHoldsUpTheFirstVisitorsOfADivert(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}
	apply(t, d, read(t, devices, vars))
	laptop := newClient("laptop", "127.0.0.1:1")
	laptop.silent.Store(true)
	want := control.Divert{Entrypoint: "devices", Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}}
	if _, err := divertOf(t, d, laptop, want); err != nil {
		t.Fatal(err)
	}
	var first sync.WaitGroup
	for range 3 {
		first.Go(func() {
			if _, err := tryVisit(t, "127.0.0.3", vars["addr"]); err != nil {
				t.Error(err)
			}
		})
	}
	first.Wait()
	for range 10 {
		begun := time.Now()
		if v := visit(t, "127.0.0.3", vars["addr"]); !strings.HasPrefix(v.name, "app") || !v.hears("hello") {
			t.Errorf("got %s, want a member of app", v.name)
		}
		if took := time.Since(begun); took > divertLimit/2 {
			t.Errorf("a visitor behind the first was held up for %s", took)
		}
	}
	r := d.cfg.Records.Find(accesslog.Query{Entrypoint: "devices"})[0]
	if diff := cmp.Diff([]accesslog.Try{{Member: "divert/laptop", Reason: "ejected", Route: "divert/laptop"}}, r.Tries); diff != "" {
		t.Errorf("what the record says was tried (-want +got):\n%s", diff)
	}
	for _, u := range d.State().Upstreams {
		if u.Name == "divert/laptop" && (u.Members[0].State != admin.MemberEjected || !u.Usable) {
			t.Errorf("the state has it as %+v, want it ejected", u)
		}
	}
}

func TestTheEndOfADivertDoesNotOpenAnEntrypointThatIsGone(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}
	with := read(t, devices, vars)
	apply(t, d, with)
	p, err := divertOf(t, d, newClient("laptop", named(t, "laptop")), control.Divert{Entrypoint: "devices", Percent: 100})
	if err != nil {
		t.Fatal(err)
	}
	without := with
	without.Entrypoints = nil // the upstreams stay, and have members to open a port for
	apply(t, d, without)
	p.Withdraw() // as control does when it is told that the entrypoint is gone
	if !refuses(vars["addr"]) {
		t.Error("the entrypoint is open, and the configuration has it no longer")
	}
	apply(t, d, with)
	if got := visit(t, "127.0.0.3", vars["addr"]).name; !strings.HasPrefix(got, "app") {
		t.Errorf("when it is back: got %s, want a member of app", got)
	}
}

func TestADivertCanMoveWhatIsOpen(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}
	apply(t, d, read(t, devices, vars))
	mine, other := visit(t, "127.0.0.3", vars["addr"]), visit(t, "127.0.0.2", vars["addr"])
	_, err := divertOf(t, d, newClient("laptop", named(t, "laptop")), control.Divert{
		Entrypoint: "devices", Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}, Existing: control.Move,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.lines.ReadString('\n'); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection that moves: got %v, want a reset", err)
	}
	if !other.hears("still") {
		t.Error("another source's connection was touched")
	}
}

func TestMembersAreDrainedAndWeightedWhileTheyRun(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}
	apply(t, d, read(t, devices, vars))
	open := visit(t, "127.0.0.2", vars["addr"])
	drain, weight := true, 3
	if err := d.ChangeMember("app", vars["app1"], admin.MemberChange{Drain: &drain}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if got := visit(t, "127.0.0.2", vars["addr"]).name; got != "app2" {
			t.Errorf("got %s, want app2: the other one drains", got)
		}
	}
	if !open.hears("still") {
		t.Error("draining touched an open connection")
	}
	stands := func() admin.MemberState {
		for _, u := range d.State().Upstreams {
			if u.Name == "app" {
				return u.Members[0].State
			}
		}
		return ""
	}
	if got := stands(); got != admin.MemberDraining {
		t.Errorf("a member that drains is %s", got)
	}
	drain, nothing := false, 0
	if err := d.ChangeMember("app", vars["app1"], admin.MemberChange{Drain: &drain, Weight: &nothing}); err != nil {
		t.Fatal(err)
	}
	if got := visit(t, "127.0.0.2", vars["addr"]).name; got != "app2" || stands() != admin.MemberDraining {
		t.Errorf("a member of weight 0 is %s, and a visitor was sent to %s", stands(), got)
	}
	if err := d.ChangeMember("app", vars["app1"], admin.MemberChange{Drain: &drain, Weight: &weight}); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for range 8 {
		got[visit(t, "127.0.0.2", vars["addr"]).name]++
	}
	if got["app1"] != 6 || got["app2"] != 2 {
		t.Errorf("got %v, want 6 of app1 and 2 of app2", got)
	}
	for _, err := range []error{d.ChangeMember("app", "nobody", admin.MemberChange{Drain: &drain}), d.ChangeMember("ap", "x", admin.MemberChange{Drain: &drain})} {
		if !errors.Is(err, admin.ErrNotFound) || !strings.Contains(err.Error(), "app") {
			t.Errorf("got %v, want a name that is not found, and those that there are", err)
		}
	}
}

func TestACheckTakesMembersOutAndEndsTheirConnections(t *testing.T) {
	d := start(t)
	sick, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	defer served.Wait()
	defer sick.Close()
	healthy := new(atomic.Bool)
	healthy.Store(true)
	served.Go(func() {
		for {
			c, err := sick.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				if !healthy.Load() {
					return // at once, so that no check depends on the time that a busy machine takes
				}
				_, _ = io.WriteString(c, "sick\n")
				_, _ = io.Copy(c, c)
			})
		}
	})
	addr := free(t, "tcp")
	apply(t, d, read(t, `
entrypoints: [{name: in, addr: "$addr", routes: [{upstream: app}]}]
upstreams:
  - name: app
    balance: first
    close_on_down: true
    members: [{address: "$sick", name: sick}, {address: "$well", name: well}]
    health: {expect: {expect: "\n"}, interval: 500ms, timeout: 500ms, rise: 1, fall: 2}
`, map[string]string{"addr": addr, "sick": sick.Addr().String(), "well": named(t, "well")}))
	v := visit(t, "127.0.0.1", addr)
	if v.name != "sick" {
		t.Fatalf("got %s, want sick", v.name)
	}
	healthy.Store(false)
	if _, err := v.lines.ReadString('\n'); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of a member that is down: got %v, want a reset", err)
	}
	if got := visit(t, "127.0.0.1", addr).name; got != "well" {
		t.Errorf("got %s, want well", got)
	}
	if m := d.State().Upstreams[0].Members[0]; m.State != admin.MemberDown || m.Check != admin.CheckDown || m.LastError == "" || m.LastErrorAt.Before(m.Since.Add(-time.Second)) || m.Since.IsZero() {
		t.Errorf("got %+v, want a member that is down, with the reason", m)
	}
	healthy.Store(true)
	await(t, "the member to come back", func() bool { return d.State().Upstreams[0].Members[0].State == admin.MemberUp })
}

// hello asks an entrypoint of TLS for a host and gives what the service that it is led to says, or why there is none.
func hello(t testing.TB, addr, host string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(c, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	err = tc.Handshake()
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record): // the service is none of TLS: it says its name, of five letters
		return string(record.RecordHeader[:])
	default:
		return fmt.Sprint(err)
	}
}

func TestTLSIsRoutedByTheHostsOfTheFileAndOfClients(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, `
entrypoints: [{name: tls, protocol: tls, addr: "$addr", when_empty: reset, routes: [{match: {host: file.example.com}, upstream: app}]}]
upstreams: [{name: app, members: [{address: "$app"}]}]
`, map[string]string{"addr": addr, "app": named(t, "aFile")}))
	offer(t, d, "tls/*.example.com", newClient("wild", named(t, "aWild")))
	exact := offer(t, d, "tls/api.example.com", newClient("api", named(t, "exact")))
	for host, want := range map[string]string{
		"file.example.com": "aFile", "api.example.com": "exact", "www.example.com": "aWild", "example.org": "remote error: tls: unrecognized name",
	} {
		if got := hello(t, addr, host); got != want {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
	}
	exact.Withdraw()
	if got := hello(t, addr, "api.example.com"); got != "aWild" {
		t.Errorf("after the client: got %q, want aWild", got)
	}
}

func TestWhoWaitsIsCountedThroughAReload(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	text := `
entrypoints: [{name: tls, protocol: tls, addr: "$addr", when_empty: reset, hello_timeout: 1h, routes: [{match: {host: $host}, upstream: app}]}]
upstreams: [{name: app, members: [{address: "127.0.0.1:1"}]}]
`
	apply(t, d, read(t, text, map[string]string{"addr": addr, "host": "a.example.com"}))
	const most = 256 // of one source
	silent := func() (net.Conn, error) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return c, err
	}
	for range most {
		if _, err := silent(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "as many as may wait", func() bool { return d.State().Entrypoints[0].Open == most })
	apply(t, d, read(t, text, map[string]string{"addr": addr, "host": "b.example.com"}))
	for range 10 { // the last of the many may not have begun to wait
		c, err := silent()
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
			_, err = c.Read(make([]byte, 1))
		}
		if errors.Is(err, syscall.ECONNRESET) { // which a Dial may be the one to hear of
			return
		}
	}
	t.Error("more than may wait are let in after a reload")
}

func TestAHostNeedsAnEntrypointOfTLS(t *testing.T) {
	d := start(t)
	_, err := d.Publish(control.Offered{Name: mustName(t, "tls/api.example.com"), Member: newClient("a", "127.0.0.1:1")})
	if err == nil || !strings.Contains(err.Error(), "--tls-port") {
		t.Errorf("got %v, want the remedy", err)
	}
}

func mustName(t testing.TB, s string) tunnel.Name {
	t.Helper()
	n, err := tunnel.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnEntrypointWithoutAUsableMemberBeginsClosed(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, `entrypoints: [{name: in, addr: "$addr", routes: [{upstream: name/x}]}]`, map[string]string{"addr": addr}))
	if !refuses(addr) {
		t.Error("it is open")
	}
}

// echoes is a service of datagrams that answers with its name, the datagram and the address of the sender.
func echoes(t testing.TB, name string) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		p := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(p)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(fmt.Appendf(nil, "%s %s %s", name, p[:n], from), from)
		}
	})
	t.Cleanup(func() { _ = c.Close(); serving.Wait() })
	return c.LocalAddr().String()
}

// flow is a socket that asks, with what is answered to each question.
func flow(t testing.TB, from, to string) func(string) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return func(word string) string {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, word)
		p := make([]byte, 2048)
		n, err := c.Read(p)
		if err != nil {
			return err.Error()
		}
		return string(p[:n])
	}
}

func TestFlowsStayThroughReloadsAndFollowDiverts(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "udp"), "one": echoes(t, "one"), "two": echoes(t, "two")}
	text := `
entrypoints: [{name: vpn, protocol: udp, addr: "$addr", routes: [{upstream: pool}]}]
upstreams: [{name: pool, members: [{address: "$one"}, {address: "$two"}]}]
`
	apply(t, d, read(t, text, vars))
	a, b := flow(t, "127.0.0.3", vars["addr"]), flow(t, "127.0.0.2", vars["addr"])
	first, other := a("x"), b("x")
	if first[:3] == other[:3] {
		t.Errorf("got %q and %q, want two members", first, other)
	}
	apply(t, d, read(t, strings.Replace(text, "{name: pool,", "{name: pool, balance: source_hash,", 1), vars))
	for range 20 {
		if got := a("x"); got != first {
			t.Fatalf("after a reload: got %q, want %q", got, first)
		}
	}
	laptop := &client{Static: upstream.NewStatic(upstream.StaticConfig{Name: "laptop", Network: "udp", Address: echoes(t, "laptop")})}
	p, err := divertOf(t, d, laptop, control.Divert{Entrypoint: "vpn", Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the flow to move", func() bool { return strings.HasPrefix(a("x"), "laptop") })
	if got := b("x"); got != other {
		t.Errorf("another flow: got %q, want %q", got, other)
	}
	p.Withdraw()
	await(t, "the flow to move back", func() bool { return !strings.HasPrefix(a("x"), "laptop") })
	if s := d.State().Entrypoints[0]; s.Open != 2 || s.Protocol != "udp" {
		t.Errorf("got %+v, want two flows", s)
	}
}
