package control

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/auth"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

var laptop = tunnel.DivertName("d1")

func diverting(counter uint64, wish tunnel.Diversion) tunnel.Hello {
	h := hello("laptop", 1, counter)
	h.Offers = []tunnel.Offer{{Tunnel: laptop.String(), Upstream: "127.0.0.1:9000", Divert: &wish}}
	return h
}

// watched is a verifier of a token file of one token, which it reads again when it changes.
func watched(t *testing.T, grant string) (v *auth.Verifier, file, token string) {
	t.Helper()
	file, token = tokenFile(t, grant)
	v, err := auth.New(auth.Config{Shared: auth.NewSecret(shared), File: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { _ = v.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		watch.Wait()
	})
	return v, file, token
}

func rewrite(t *testing.T, file, from, to string) {
	t.Helper()
	p, err := os.ReadFile(file)
	if err == nil {
		if !strings.Contains(string(p), from) {
			t.Fatalf("%q is not in %s", from, p)
		}
		err = os.WriteFile(file, []byte(strings.Replace(string(p), from, to, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// offers remembers what was published.
type offers struct {
	*plane
	all []Offered
}

func (o *offers) Publish(offered Offered) (Publication, error) {
	p, err := o.plane.Publish(offered)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, offered)
	return carrying{p}, err
}

func (o *offers) last() Offered {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[len(o.all)-1]
}

// carrying is a publication that has carried two of three connections to their end.
type carrying struct{ Publication }

func (carrying) Carried() (protocol string, open int, total uint64) { return "tcp", 1, 3 }

func TestDivertFromBeginningToEnd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lasts time.Duration
		end   func(t *testing.T, b *bench, o *offers, file string)
		text  string
		over  bool
		label string
	}{
		{"its time is over", 300 * time.Millisecond, func(*testing.T, *bench, *offers, string) {}, "its time is over", true, "time"},
		{"an operator ends it", time.Hour, func(t *testing.T, b *bench, _ *offers, _ string) {
			if err := b.server.EndDivert("d1", "ended by an operator"); err != nil {
				t.Error(err)
			}
		}, "ended by an operator", false, "operator"},
		{"the entrypoint goes", time.Hour, func(_ *testing.T, _ *bench, o *offers, _ string) { o.last().End("the entrypoint is gone") }, "the entrypoint is gone", false, "server"},
		{
			"its token is narrowed", time.Hour, func(t *testing.T, _ *bench, _ *offers, file string) {
				rewrite(t, file, "divert: [dev-*]", "divert: [other]")
			},
			"the token may not divert traffic of entrypoint dev-1: it is granted diverts of other", false, "token",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, file, token := watched(t, "{}\n    divert: [dev-*]")
			var log book
			o, reg := &offers{plane: newPlane()}, prometheus.NewRegistry()
			b := serve(t, func(c *Config) {
				c.Verify, c.Publisher, c.Log = v.Verify, o, slog.New(slog.NewTextHandler(&log, nil))
				c.Metrics = NewMetrics(reg, true, true)
			})
			begun := time.Now()
			s, w := b.mustConnect(t, token, diverting(1, tunnel.Diversion{
				Entrypoint: "dev-1", Sources: []string{"203.0.113.7", "2001:db8::1/32"}, Hosts: []string{"API.example.com"}, For: tt.lasts, Fail: true,
			}))
			if r := w.Answers[0].Refused; r != "" {
				t.Fatal(r)
			}
			o.await(t, laptop, 1)
			d := o.last().Divert
			if !slices.Equal(d.Sources, []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("2001:db8::/32")}) ||
				d.Hosts[0].String() != "api.example.com" || d.Percent != 100 || !d.Fail || d.By != "0123abcd" || d.ByName != "test" || d.To != "127.0.0.1:9000" || d.Until.Sub(begun) < tt.lasts {
				t.Errorf("published: %+v", d)
			}
			if tt.lasts == time.Hour {
				live := b.server.Diverts()
				if len(live) != 1 || !live[0].Up || live[0].ID != "d1" || live[0].Open != 1 || live[0].Total != 3 || live[0].Protocol != "tcp" {
					t.Errorf("live: %+v", live)
				}
			}
			tt.end(t, b, o, file)
			if got, want := <-s.TunnelEnded(), (tunnel.Ended{Tunnel: "divert/d1", Reason: tt.text, Over: tt.over}); got != want {
				t.Errorf("the client is told %+v, want %+v", got, want)
			}
			o.await(t, laptop, 0)
			if len(b.server.Diverts()) != 0 || s.Err() != nil {
				t.Errorf("diverts: %+v, and the session: %v", b.server.Diverts(), s.Err())
			}
			if log.count("INFO", `msg="divert begins" divert=d1 by="test (0123abcd)" client=shop/laptop`) != 1 || log.count("INFO", `msg="divert ends" divert=d1 by="test (0123abcd)"`) != 1 {
				t.Errorf("audit: %s", log.b.String())
			}
			if got := counted(t, reg, "culvert_diverts_ended_total", tt.label); got != 1 {
				t.Errorf("%v diverts counted as ended by %s, want 1", got, tt.label)
			}
			if open, all := counted(t, reg, "culvert_diverts_gauge", ""), counted(t, reg, "culvert_diverts_total", ""); open != 0 || all != 1 {
				t.Errorf("%v open of %v, want 0 of 1", open, all)
			}
			if err := b.server.EndDivert("d1", "again"); !errors.Is(err, ErrNoDivert) {
				t.Errorf("ended again: %v", err)
			}
		})
	}
}

// counted is the value of a metric with a label value, 0 if there is none.
func counted(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func TestWishesThatAreRefused(t *testing.T) {
	many := slices.Repeat([]string{"192.0.2.1"}, maxDivertSources+1)
	for _, tt := range []struct {
		name   string
		change func(*tunnel.Diversion)
		want   string
	}{
		{"no entrypoint", func(d *tunnel.Diversion) { d.Entrypoint = "" }, "must name an entrypoint"},
		{"an entrypoint that no terminal should see", func(d *tunnel.Diversion) { d.Entrypoint = "a\x1b[2J" }, "must name an entrypoint"},
		{"a source that is none", func(d *tunnel.Diversion) { d.Sources = []string{"localhost"} }, `source: "localhost" is neither an address nor a CIDR`},
		{"too many sources", func(d *tunnel.Diversion) { d.Sources = many }, "257 sources, at most 256"},
		{"too many hosts", func(d *tunnel.Diversion) { d.Hosts = slices.Repeat([]string{"a.test"}, maxDivertHosts+1) }, "65 hosts"},
		{"a host that is none", func(d *tunnel.Diversion) { d.Hosts = []string{"a..b"} }, "a..b"},
		{"more than all", func(d *tunnel.Diversion) { d.Percent = 101 }, "101 percent"},
		{"less than nothing", func(d *tunnel.Diversion) { d.Percent = -1 }, "-1 percent"},
		{"two days", func(d *tunnel.Diversion) { d.For = 48 * time.Hour }, "lasts at most 24h0m0s, not 48h0m0s"},
		{"a time that is over", func(d *tunnel.Diversion) { d.For = -1 }, "lasts at most"},
		{"strange existing", func(d *tunnel.Diversion) { d.Existing = "kill" }, `cannot be "kill"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := serve(t, nil)
			wish := tunnel.Diversion{Entrypoint: "devices"}
			tt.change(&wish)
			_, w := b.mustConnect(t, shared, diverting(1, wish))
			if got := w.Answers[0].Refused; !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if len(b.server.Diverts()) != 0 {
				t.Error("it is there all the same")
			}
		})
	}
	if _, err := newDivert(&session{bearer: auth.Anyone()}, laptop, tunnel.Offer{Divert: &tunnel.Diversion{Entrypoint: "a", Percent: math.NaN()}}); err == nil {
		t.Error("a percentage that is no number is taken")
	}
	b := serve(t, nil)
	_, w := b.mustConnect(t, shared, hello("i", 1, 1, "divert/x"))
	if got := w.Answers[0].Refused; !strings.Contains(got, "must say what") {
		t.Errorf("without a wish: got %q", got)
	}
}

func TestWhoMayDivert(t *testing.T) {
	for _, tt := range []struct {
		name, grant, entrypoint, refused string
	}{
		{"the scope for the entrypoint", "{}\n    divert: [devices]", "devices", ""},
		{"the scope for another one", "{}\n    divert: [web]", "devices", "the token may not divert traffic of entrypoint devices: it is granted diverts of web"},
		{"no scope, and all else", "{hosts: ['*'], ports: ['1-65535'], names: ['*']}\n    read: true\n    admin: true", "devices", "it is granted no diverts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, _, token := watched(t, tt.grant)
			b := serve(t, func(c *Config) { c.Verify = v.Verify })
			_, w := b.mustConnect(t, token, diverting(1, tunnel.Diversion{Entrypoint: tt.entrypoint}))
			if got := w.Answers[0].Refused; got == "" != (tt.refused == "") || !strings.Contains(got, tt.refused) {
				t.Errorf("got %q, want %q", got, tt.refused)
			}
		})
	}
	b := serve(t, nil)
	if _, w := b.mustConnect(t, shared, diverting(1, tunnel.Diversion{Entrypoint: "tcp/2222"})); w.Answers[0].Refused != "" {
		t.Errorf("the shared token: %s", w.Answers[0].Refused)
	}
}

// The grant is asked for each connection, before the tick that ends the divert.
func TestEachConnectionOfADivertAsksTheGrant(t *testing.T) {
	v, file, token := watched(t, "{}\n    divert: [devices]")
	b := serve(t, func(c *Config) { c.Verify = v.Verify })
	b.mustConnect(t, token, diverting(1, tunnel.Diversion{Entrypoint: "devices"}))
	m := b.plane.await(t, laptop, 1).Members()[0]
	if err := m.(upstream.Revocable).Permitted(); err != nil {
		t.Fatal(err)
	}
	rewrite(t, file, "divert: [devices]", "divert: [web]")
	await(t, "the narrowed grant", func() bool { return m.(upstream.Revocable).Permitted() != nil })
	_, err := m.Dial(t.Context(), &upstream.Visit{ID: "c1"})
	if upstream.ReasonOf(err) != upstream.NotAllowed {
		t.Errorf("got %v, want that it is not allowed", err)
	}
}

func TestRevokedTokenEndsItsDivert(t *testing.T) {
	v, file, token := watched(t, "{}\n    divert: [devices]")
	b := serve(t, func(c *Config) { c.Verify = v.Verify })
	s, _ := b.mustConnect(t, token, diverting(1, tunnel.Diversion{Entrypoint: "devices"}))
	b.plane.await(t, laptop, 1)
	if err := os.WriteFile(file, []byte("tokens: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if g := <-s.GoneAway(); g.Reason != tunnel.Revoked {
		t.Errorf("told %q, want revoked", g.Reason)
	}
	awaitDone(t, s)
	b.plane.await(t, laptop, 0)
	await(t, "the divert to end", func() bool { return len(b.server.Diverts()) == 0 })
}

func TestDivertGoesOnAfterAPauseForTheRestOfItsTime(t *testing.T) {
	o := &offers{plane: newPlane()}
	b := serve(t, func(c *Config) { c.Publisher = o })
	s, conn := b.cuttable(t, shared, diverting(1, tunnel.Diversion{Entrypoint: "devices", For: time.Hour}))
	o.await(t, laptop, 1)
	first := o.last().Divert
	_ = conn.Close()
	o.await(t, laptop, 0)
	if live := b.server.Diverts(); len(live) != 1 || live[0].Up {
		t.Errorf("in the pause: %+v", live)
	}
	if err := s.Attach(t.Context(), b.raw(t, shared)); err != nil {
		t.Fatal(err)
	}
	o.await(t, laptop, 1)
	if again := o.last().Divert; !again.Until.Equal(first.Until) || !again.Begun.Equal(first.Begun) {
		t.Errorf("it lasts from %s to %s, was %s to %s", again.Begun, again.Until, first.Begun, first.Until)
	}
}

func TestDivertThatEndsInAPauseDoesNotComeBack(t *testing.T) {
	o := &offers{plane: newPlane()}
	b := serve(t, func(c *Config) { c.Publisher = o })
	s, conn := b.cuttable(t, shared, diverting(1, tunnel.Diversion{Entrypoint: "devices", For: time.Hour}))
	o.await(t, laptop, 1)
	_ = conn.Close()
	o.await(t, laptop, 0)
	if err := b.server.EndDivert("d1", "enough"); err != nil {
		t.Fatal(err)
	}
	if err := s.Attach(t.Context(), b.raw(t, shared)); err != nil {
		t.Fatal(err)
	}
	if e := <-s.TunnelEnded(); e.Reason != "enough" {
		t.Errorf("told %+v", e)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.all) != 1 {
		t.Errorf("published %d times, want once", len(o.all))
	}
}

func TestNobodyTakesOverADivertOfAnotherClient(t *testing.T) {
	b := serve(t, nil)
	victim, _ := b.mustConnect(t, shared, diverting(1, tunnel.Diversion{Entrypoint: "devices"}))
	h := diverting(1, tunnel.Diversion{Entrypoint: "devices"})
	h.Instance = "another"
	_, w := b.mustConnect(t, shared, h)
	if got := w.Answers[0].Refused; !strings.Contains(got, "another client has a divert of this id") {
		t.Errorf("got %q", got)
	}
	// The client's own next session does, and the old one's end does not end it.
	b.mustConnect(t, shared, diverting(2, tunnel.Diversion{Entrypoint: "devices"}))
	awaitDone(t, victim)
	await(t, "the old session to be gone", func() bool { return len(b.server.Clients()) == 2 })
	b.plane.await(t, laptop, 1)
	if live := b.server.Diverts(); len(live) != 1 || !live[0].Up {
		t.Errorf("live: %+v", live)
	}
}
