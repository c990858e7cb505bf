package control

import (
	"strings"
	"testing"

	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

var telnet = tunnel.TCPName(2323)

// checked is a data plane that wants to know of the clients' checks.
type checked struct {
	*plane
	told chan string
}

func newChecked() *checked { return &checked{newPlane(), make(chan string, 16)} }

func (c *checked) Publish(o Offered) (Publication, error) {
	p, err := c.plane.Publish(o)
	return checkedPlace{p.(place), c.told}, err
}

type checkedPlace struct {
	place
	told chan string
}

func (p checkedPlace) Health(up bool, cause error) {
	if up && cause == nil {
		p.told <- "up"
		return
	}
	p.told <- "down: " + cause.Error()
}

func usable(u *upstream.Upstream) bool {
	return u.Members()[0].(interface{ Usable() bool }).Usable()
}

func TestAServiceThatIsDownGetsNoVisitors(t *testing.T) {
	c := newChecked()
	b := serve(t, func(cfg *Config) { cfg.Publisher = c })
	s, _ := b.mustConnect(t, shared, hello("a", 1, 1, ssh.String(), telnet.String()))
	u, other := c.await(t, ssh, 1), c.await(t, telnet, 1)
	if !usable(u) {
		t.Fatal("not usable at the start")
	}
	for _, step := range []struct {
		say  tunnel.Health
		want string
	}{
		{tunnel.Health{Tunnel: ssh.String(), Error: "connection refused"}, "down: connection refused"},
		{tunnel.Health{Tunnel: ssh.String(), Error: "no answer within 1s"}, "down: no answer within 1s"},
		{tunnel.Health{Tunnel: ssh.String(), Up: true, Error: "ignored"}, "up"},
		{tunnel.Health{Tunnel: ssh.String()}, "down: the check of the service fails"},
		{tunnel.Health{Tunnel: ssh.String(), Error: "a\x1b[2J\n" + strings.Repeat("b", 1000)}, "down: a[2J" + strings.Repeat("b", 250)},
	} {
		if err := s.Health(step.say); err != nil {
			t.Fatal(err)
		}
		if got := <-c.told; got != step.want {
			t.Errorf("said %.60v: got %q, want %q", step.say, got, step.want)
		}
		if shown := b.server.Clients()[0].Tunnels[0].Down; (shown == "") != step.say.Up {
			t.Errorf("said %.60v: the status shows %q", step.say, shown)
		}
		if usable(u) != step.say.Up || !usable(other) {
			t.Errorf("said %.60v: usable %v, and the other tunnel %v", step.say, usable(u), usable(other))
		}
	}
	// What is not news, and what is of no tunnel of the client's, changes nothing.
	for _, say := range []tunnel.Health{{Tunnel: telnet.String(), Up: true}, {Tunnel: "tcp/1"}, {}} {
		if err := s.Health(say); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Health(tunnel.Health{Tunnel: ssh.String(), Up: true}); err != nil {
		t.Fatal(err)
	}
	if got := <-c.told; got != "up" {
		t.Errorf("got %q, want the last word only", got)
	}
}

func TestAServiceThatIsDownIsOfferedButDown(t *testing.T) {
	b := serve(t, nil)
	h := hello("a", 1, 1, ssh.String())
	h.Offers[0].Down = "connection refused"
	s, conn := b.cuttable(t, shared, h)
	if usable(b.plane.await(t, ssh, 1)) {
		t.Error("usable, though offered as down")
	}
	// It is what it was when it comes back after a pause, also if it changed before.
	for _, up := range []bool{false, true, false} {
		if err := s.Health(tunnel.Health{Tunnel: ssh.String(), Up: up, Error: "refused"}); err != nil {
			t.Fatal(err)
		}
		await(t, "the word on the service", func() bool { return usable(b.plane.await(t, ssh, 1)) == up })
		_ = conn.Close()
		b.plane.await(t, ssh, 0)
		conn = b.raw(t, shared)
		if err := s.Attach(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		if got := usable(b.plane.await(t, ssh, 1)); got != up {
			t.Errorf("after a pause: usable %v, want %v", got, up)
		}
	}
}

// A client's go-away and end are not held up by its words on services.
func TestManyWordsOnServices(t *testing.T) {
	b := serve(t, nil)
	s, _ := b.mustConnect(t, shared, hello("a", 1, 1, ssh.String()))
	for i := range 500 {
		if err := s.Health(tunnel.Health{Tunnel: ssh.String(), Up: i%2 == 1, Error: "flaps"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.GoAway(tunnel.GoAway{Reason: tunnel.Shutdown}); err != nil {
		t.Fatal(err)
	}
	b.plane.await(t, ssh, 0)
}

func TestWeightsOutOfBoundsAreRefused(t *testing.T) {
	b := serve(t, nil)
	h := hello("a", 1, 1, ssh.String(), telnet.String())
	h.Offers[0].Weight, h.Offers[1].Weight = -1, tunnel.MaxWeight+1
	_, w := b.mustConnect(t, shared, h)
	for _, a := range w.Answers {
		if !strings.Contains(a.Refused, "weight") {
			t.Errorf("%s: answer %q", a.Tunnel, a.Refused)
		}
	}
}
