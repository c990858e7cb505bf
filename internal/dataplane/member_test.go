package dataplane

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"culvert/internal/admin"
)

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
