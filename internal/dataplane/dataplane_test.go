package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"culvert/internal/accesslog"
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

func TestAnEntrypointWithoutAUsableMemberBeginsClosed(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, `entrypoints: [{name: in, addr: "$addr", routes: [{upstream: name/x}]}]`, map[string]string{"addr": addr}))
	if !refuses(addr) {
		t.Error("it is open")
	}
}
