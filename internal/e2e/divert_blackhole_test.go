//go:build linux

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDivertToABlackHole: a target that swallows connections holds up the first visitors and nobody after them, and has its
// traffic again when it answers.
func TestDivertToABlackHole(t *testing.T) {
	need(t, "nft")
	t.Parallel()
	app, laptop := startNamed(t, "app", "127.0.0.1:0", nil), startNamed(t, "laptop", "127.0.0.1:0", nil)
	devices := freeAddr(t)
	s := configured(t, `
entrypoints:
  - {name: devices, addr: "`+devices+`", routes: [{upstream: app}]}
upstreams:
  - {name: app, members: [{address: "`+app.addr+`"}]}
`)
	accepts(t, "tcp", devices)
	const device = "127.0.0.78"
	p, id := s.divert(t, "--entrypoint", "devices", "--source", device, "--to", laptop.addr)
	goesTo(t, device, devices, "laptop", 1)
	f := startFirewall(t)
	f.drop(t, "tcp dport "+portOf(laptop.addr))
	heldUp, slowest := 0, time.Duration(0)
	for range 23 {
		begun := time.Now()
		goesTo(t, device, devices, "app", 1)
		if took := time.Since(begun); took >= time.Second {
			heldUp++
		} else {
			slowest = max(slowest, took)
		}
	}
	t.Logf("%d of 23 visitors waited for the second, the slowest of the others %s", heldUp, slowest.Round(time.Millisecond))
	if heldUp != 3 {
		t.Errorf("%d visitors waited, want the first three", heldUp)
	}
	r := s.command(t, "explain", "--source", device, "--last", "1")
	for _, want := range []string{"tried       divert/" + id + ": ejected\n", "given to    " + app.addr} {
		if !strings.Contains(r.out, want) {
			t.Errorf("explain has no %q:\n%s", want, r.out)
		}
	}
	s.line(t, `msg="member is left out for a while" .*upstream=divert/`+id+` .*reason=timeout for=10s`)
	p.line(t, regexp.QuoteMeta(laptop.addr)+` does not answer: visitors go on to the entrypoint's own routes`)
	f.clear(t)
	begun := time.Now()
	eventually(t, 45*time.Second, "the target has its traffic again", func(context.Context) error {
		c, got := greetedFrom(t, device, devices)
		c.Close()
		if got != "laptop" {
			return fmt.Errorf("the device came to %s", got)
		}
		return nil
	})
	t.Logf("%s after the target answered it had the device again", time.Since(begun).Round(time.Second))
	goesTo(t, device, devices, "laptop", 3)
	if code := p.stop(t); code != 0 {
		t.Errorf("culvert divert: code %d\n%s", code, p.out.String())
	}
}
