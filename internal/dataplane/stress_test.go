package dataplane

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/control"
	"culvert/internal/tunnel"
)

// TestEverythingAtOnce reloads, publishes, diverts and drains under visitors, each of whom must get an answer.
func TestEverythingAtOnce(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "other": free(t, "tcp"), "app1": named(t, "app1"), "app2": named(t, "app2"), "debug": named(t, "debug")}
	plans := []string{devices, strings.ReplaceAll(devices, "name: debug-box, match: {source: [127.0.0.140]}", "name: x, match: {source: [127.0.0.2]}"), devices + `
  - {name: more, balance: least_conn, members: [{address: "$app1"}, {tunnel: name/a}]}
`, strings.ReplaceAll(devices, "upstreams:", `  - {name: other, addr: "$other", routes: [{upstream: app}]}
upstreams:`)}
	apply(t, d, read(t, devices, vars))
	begun := time.Now()
	var served, moved atomic.Int64
	enough := func() bool { // by number too, for a machine may be slow
		n, m := served.Load(), moved.Load()
		return time.Since(begun) > 2*time.Second && (n >= 100 && m > 0 && m < n || time.Since(begun) > time.Minute)
	}
	var wait sync.WaitGroup
	again := func(do func(i int)) {
		wait.Go(func() {
			for i := 0; !enough(); i++ {
				do(i)
			}
		})
	}
	again(func(i int) {
		if err := d.Apply(read(t, plans[i%len(plans)], vars)); err != nil {
			t.Error(err)
		}
	})
	for n := range 2 {
		again(func(i int) {
			for _, name := range []string{"name/a", fmt.Sprintf("divert/d%d", n)} {
				m := newClient(fmt.Sprintf("c%d-%d", n, i), vars["debug"])
				o := control.Offered{Name: mustName(t, name), Member: m}
				if o.Name.Kind() == tunnel.Divert {
					o.End = func(string) {}
					o.Divert = &control.Divert{Entrypoint: "devices", Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}}
				}
				p, err := d.Publish(o)
				if err != nil {
					t.Error(err)
					continue
				}
				p.(control.HealthPublication).Health(i%2 == 0, nil)
				p.(control.DivertPublication).Carried()
				p.Withdraw()
			}
			d.State()
			_ = d.Ready("app")
		})
	}
	for _, from := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.140"} {
		again(func(int) {
			c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", vars["addr"])
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			word := fmt.Sprint(rand.Uint32())
			_, _ = io.WriteString(c, word)
			_ = c.(*net.TCPConn).CloseWrite()
			answer, err := io.ReadAll(c)
			if err != nil || !strings.HasSuffix(string(answer), "\n"+word) {
				t.Errorf("from %s: got %q, %v", from, answer, err)
			}
			served.Add(1)
			if strings.HasPrefix(string(answer), "debug") {
				moved.Add(1)
			}
		})
	}
	wait.Wait()
	if served.Load() < 100 || moved.Load() == 0 || moved.Load() == served.Load() {
		t.Errorf("got %d visitors served, %d of them away from app: too few to tell", served.Load(), moved.Load())
	}
	apply(t, d, read(t, devices, vars))
	if s := d.State(); len(s.Entrypoints) != 1 || len(s.Upstreams) != 2 {
		t.Errorf("got %+v, want what the file has and nothing left", s)
	}
}
