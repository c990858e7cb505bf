package dataplane

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/accesslog"
	"culvert/internal/admin"
	"culvert/internal/control"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

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
		if took := time.Since(begun); took >= divertLimit {
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

func TestDatagramsAreNotDivertedToAUnixSocket(t *testing.T) {
	d := start(t)
	apply(t, d, read(t, `
entrypoints: [{name: vpn, protocol: udp, addr: "$addr", routes: [{upstream: app}]}]
upstreams: [{name: app, members: [{address: "127.0.0.1:9"}]}]
`, map[string]string{"addr": free(t, "udp")}))
	_, err := divertOf(t, d, newClient("laptop", named(t, "laptop")), control.Divert{Entrypoint: "vpn", Percent: 100, To: "unix:/run/vpn.sock"})
	if err == nil || !strings.Contains(err.Error(), "HOST:PORT") {
		t.Errorf("got %v, want an error that says what it takes", err)
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
