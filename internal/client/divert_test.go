package client

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/pki"
	"culvert/internal/tunnel"
	"culvert/internal/tunnel/ws"
)

// diverting is a divert that runs against a server whose sessions the test holds.
type diverting struct {
	hellos   chan tunnel.Hello
	sessions chan *tunnel.Session
	events   chan DivertEvent
	done     chan error
	stop     context.CancelFunc
}

// divertAt runs a divert to the target for so long; the server answers each of its offers with the next of refusals, or takes it.
func divertAt(t *testing.T, target string, lasts time.Duration, status int, refusals ...string) *diverting {
	t.Helper()
	d := &diverting{
		hellos: make(chan tunnel.Hello, 10), sessions: make(chan *tunnel.Session, 10), events: make(chan DivertEvent, 100), done: make(chan error, 1),
	}
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != 0 {
			w.WriteHeader(status)
			return
		}
		conn, err := ws.Upgrade(w, r)
		if err != nil {
			return
		}
		m, err := mux.Server(conn, mux.Config{})
		if err != nil {
			return
		}
		s, h, err := tunnel.Accept(context.Background(), m)
		if err != nil {
			return
		}
		refused := ""
		if len(refusals) > 0 {
			refused, refusals = refusals[0], refusals[1:]
		}
		d.hellos <- h
		_ = s.Welcome(tunnel.Welcome{Answers: []tunnel.Answer{{Tunnel: h.Offers[0].Tunnel, Refused: refused}}})
		d.sessions <- s
	}))
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(web.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Path = "wss", ws.Path
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	go func() {
		d.done <- Divert(ctx, DivertConfig{
			Client: Config{URLs: []*url.URL{u}, Token: auth.NewSecret("t0ken"), Trust: pki.Trust{CAFile: ca}, Log: quiet},
			Wish:   tunnel.Diversion{Entrypoint: "devices", Sources: []string{"203.0.113.7"}, For: lasts},
			Target: Upstream{Scheme: SchemeTCP, Network: "tcp", Address: target, Spec: target},
			Report: func(e DivertEvent) { d.events <- e },
		})
		close(d.done)
	}()
	t.Cleanup(func() {
		stop()
		for range d.done { // nobody has waited for it
		}
		for len(d.sessions) > 0 {
			(<-d.sessions).Close(nil)
		}
		web.Close()
	})
	return d
}

func (d *diverting) begun(t *testing.T) *tunnel.Session {
	t.Helper()
	s := <-d.sessions
	t.Cleanup(func() { s.Close(nil) })
	if e := <-d.events; e.Begun == nil {
		t.Fatalf("got %+v, want that it has begun", e)
	}
	return s
}

func TestDivertHasItsTime(t *testing.T) {
	begun := time.Now()
	d := divertAt(t, "127.0.0.1:1", 200*time.Millisecond, 0)
	d.begun(t)
	o := (<-d.hellos).Offers[0]
	if !strings.HasPrefix(o.Tunnel, "divert/") || o.Upstream != "127.0.0.1:1" || o.Divert == nil || o.Divert.Entrypoint != "devices" || o.Divert.For != 200*time.Millisecond {
		t.Errorf("offered %+v, %+v", o, o.Divert)
	}
	if err := <-d.done; !errors.Is(err, ErrTimeOver) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took < 200*time.Millisecond {
		t.Errorf("ended after %s", took)
	}
}

func TestWhatEndsADivert(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, d *diverting, s *tunnel.Session)
		want string // of the error; "" for none
	}{
		{"the server says that its time is over", func(_ *testing.T, _ *diverting, s *tunnel.Session) {
			_ = s.End(tunnel.Ended{Reason: "its time is over", Over: true})
		}, "its time is over"},
		{"the server ends it", func(_ *testing.T, _ *diverting, s *tunnel.Session) {
			_ = s.End(tunnel.Ended{Reason: "ended by an operator"})
		}, "the server has ended the divert: ended by an operator"},
		{"the token is revoked", func(_ *testing.T, _ *diverting, s *tunnel.Session) {
			_ = s.GoAway(tunnel.GoAway{Reason: tunnel.Revoked, Detail: "the token has been revoked"})
			s.Finish(context.Background())
		}, "the token has been revoked"},
		{"the user interrupts it", func(t *testing.T, d *diverting, s *tunnel.Session) {
			d.stop()
			if g := <-s.GoneAway(); g.Reason != tunnel.Shutdown {
				t.Errorf("the server is told %q", g.Reason)
			}
			s.Close(nil)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := divertAt(t, "127.0.0.1:1", time.Hour, 0)
			s := d.begun(t)
			tt.end(t, d, s)
			if err := <-d.done; (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestDivertThatDoesNotBegin(t *testing.T) {
	for _, tt := range []struct {
		name    string
		status  int
		refusal string
		want    string
	}{
		{"the server refuses it", 0, "the token may not divert traffic of entrypoint devices", "the server refuses the divert: the token may not divert traffic of entrypoint devices"},
		{"the server refuses the token", http.StatusUnauthorized, "", "refused the token"},
		{"it is no server", http.StatusNotFound, "", "is it a culvert control port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := divertAt(t, "127.0.0.1:1", time.Hour, tt.status, tt.refusal)
			if err := <-d.done; err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if len(d.events) > 0 {
				t.Errorf("reported %+v", <-d.events)
			}
		})
	}
}

// After a loss of its session, what is left of the time is offered, and not the whole.
func TestDivertComesBackForTheRestOfItsTime(t *testing.T) {
	d := divertAt(t, "127.0.0.1:1", time.Hour, 0)
	s := d.begun(t)
	first := (<-d.hellos).Offers[0]
	s.Close(errors.New("the server is restarted"))
	if e := <-d.events; e.Lost == nil {
		t.Errorf("got %+v, want that it is lost", e)
	}
	again := (<-d.hellos).Offers[0]
	if again.Tunnel != first.Tunnel || again.Divert.For >= first.Divert.For || again.Divert.For < first.Divert.For-time.Minute {
		t.Errorf("offered %s for %s, then %s for %s", first.Tunnel, first.Divert.For, again.Tunnel, again.Divert.For)
	}
	if e := <-d.events; !e.Back {
		t.Errorf("got %+v, want that it is back", e)
	}
}

func TestADivertTellsThatItsTargetDoesNotServe(t *testing.T) {
	d := divertAt(t, "127.0.0.1:1", time.Hour, 0) // where nobody listens
	s := d.begun(t)
	name, err := tunnel.ParseName((<-d.hellos).Offers[0].Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Open(t.Context(), tunnel.Open{Tunnel: name, ID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-d.events; e.Opened == nil {
		t.Errorf("reported %+v", e)
	}
	if e := <-d.events; e.Unserved != "refuses connections" {
		t.Errorf("reported %+v, want that the target refuses", e)
	}
	_ = st.Reset()
}

func TestConnectionsOfADivertReachItsTarget(t *testing.T) {
	d := divertAt(t, echoes(t), time.Hour, 0)
	s := d.begun(t)
	name, err := tunnel.ParseName((<-d.hellos).Offers[0].Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Open(t.Context(), tunnel.Open{Tunnel: name, ID: "c1", Source: netip.MustParseAddrPort("203.0.113.7:4000")})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-d.events; e.Opened == nil || e.Opened.ID != "c1" || e.Opened.Source.Port() != 4000 {
		t.Errorf("reported %+v", e)
	}
	_, _ = io.WriteString(st, "hi")
	got := make([]byte, 2)
	if _, err := io.ReadFull(st, got); err != nil || string(got) != "hi" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = st.Reset()
}
