package dataplane

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/config/plan"
)

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
