package control

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/tunnel"
	"culvert/internal/tunnel/ws"
	"culvert/internal/udp"
	"culvert/internal/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shared = "a shared token of the tests"

// plane is a data plane without entrypoints: upstreams by name.
type plane struct {
	mu        sync.Mutex
	upstreams map[tunnel.Name]*upstream.Upstream
	changed   chan struct{} // closed and replaced at each change
}

func newPlane() *plane {
	return &plane{upstreams: make(map[tunnel.Name]*upstream.Upstream), changed: make(chan struct{})}
}

func (p *plane) Publish(o Offered) (Publication, error) {
	name, m := o.Name, o.Member
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.upstreams[name]
	if u == nil {
		u = upstream.New(upstream.Config{Name: name.String(), Retries: -1})
		p.upstreams[name] = u
	}
	u.Add(upstream.Placed{Member: m})
	p.notify()
	return place{p, u, m}, nil
}

func (p *plane) Settle() {}

func (p *plane) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// await waits until the tunnel has so many members.
func (p *plane) await(t *testing.T, name tunnel.Name, members int) *upstream.Upstream {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		p.mu.Lock()
		u, changed := p.upstreams[name], p.changed
		p.mu.Unlock()
		if u != nil && len(u.Members()) == members || u == nil && members == 0 {
			return u
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s has not come to %d members", name, members)
		}
	}
}

type place struct {
	plane    *plane
	upstream *upstream.Upstream
	member   upstream.Member
}

func (p place) Address() string { return "here" }
func (p place) Withdraw() {
	p.plane.mu.Lock()
	defer p.plane.mu.Unlock()
	p.upstream.Remove(p.member)
	p.plane.notify()
}

// bench is a server under test, with what a client needs to reach it.
type bench struct {
	server *Server
	plane  *plane
	dial   ws.Dial
}

func serve(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	verifier, err := auth.New(auth.Config{Shared: auth.NewSecret(shared)})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{plane: newPlane()}
	cfg := Config{
		Software: "test", Verify: verifier.Verify, Admit: func(*http.Request) {}, Publisher: b.plane, Ports: auth.AllPorts(),
		HTTP: true, TCP: true, Budget: mux.NewBudget(0), Metrics: NewMetrics(prometheus.NewRegistry(), true, true),
		Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	b.server = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = b.server.Run(ctx)
	}()
	web := httptest.NewTLSServer(b.server)
	t.Cleanup(func() {
		cancel()
		<-stopped
		web.Close()
	})
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	u, err := url.Parse(web.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Path = "wss", ws.Path
	b.dial = ws.Dial{URL: u, TLS: &tls.Config{RootCAs: pool}, Timeout: 5 * time.Second}
	return b
}

// connect makes a session as a client does.
func (b *bench) connect(t *testing.T, token string, h tunnel.Hello) (*tunnel.Session, tunnel.Welcome, error) {
	t.Helper()
	d := b.dial
	d.Header = http.Header{"Authorization": {"Bearer " + token}}
	conn, err := d.Connect(t.Context())
	if err != nil {
		return nil, tunnel.Welcome{}, err
	}
	m, err := mux.Client(conn, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, w, err := tunnel.Connect(t.Context(), m, h)
	if err == nil {
		t.Cleanup(func() { s.Close(nil) })
	}
	return s, w, err
}

func (b *bench) mustConnect(t *testing.T, token string, h tunnel.Hello) (*tunnel.Session, tunnel.Welcome) {
	t.Helper()
	s, w, err := b.connect(t, token, h)
	if err != nil {
		t.Fatal(err)
	}
	return s, w
}

func hello(instance string, epoch, counter uint64, tunnels ...string) tunnel.Hello {
	h := tunnel.Hello{ID: "shop", Instance: instance, Epoch: epoch, Counter: counter}
	for _, name := range tunnels {
		h.Offers = append(h.Offers, tunnel.Offer{Tunnel: name, Upstream: "up-" + name})
	}
	return h
}

func awaitDone(t *testing.T, s *tunnel.Session) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the session lives on")
	}
}

var ssh = tunnel.TCPName(2222)

func TestOffersAreAnsweredOneByOne(t *testing.T) {
	b := serve(t, func(c *Config) { c.Ports, _ = auth.ParsePorts("2000-3000") })
	_, w := b.mustConnect(t, shared, hello("i", 1, 1,
		"tcp/2222", "tcp/22", "tcp/2222", "http/app.example.com", "http/App.example.com", "name/db", "tls/app.example.com", "sctp/53"))
	want := []string{"", "port 22 is not among", "twice", "", "canonical", "", "", "unknown kind"}
	for i, part := range want {
		got := w.Answers[i].Refused
		if part == "" && got != "" || part != "" && !strings.Contains(got, part) {
			t.Errorf("%s: got %q, want %q", w.Answers[i].Tunnel, got, part)
		}
	}
	clients := b.server.Clients()
	if len(clients) != 1 || len(clients[0].Tunnels) != 4 || clients[0].Upstreams[0] != "up-tcp/2222" {
		t.Errorf("clients: got %+v", clients)
	}
}

func TestServerOfOneKindRefusesTheOther(t *testing.T) {
	for _, tt := range []struct {
		name          string
		lacks         func(*Config)
		refused, kept string
	}{
		{"HTTP alone", func(c *Config) { c.TCP = false }, "tcp/2222", "http/*"},
		{"TCP alone", func(c *Config) { c.HTTP = false }, "http/*", "tcp/2222"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := serve(t, tt.lacks)
			_, w := b.mustConnect(t, shared, hello("i", 1, 1, tt.refused, tt.kept))
			if !strings.Contains(w.Answers[0].Refused, " only") || w.Answers[1].Refused != "" {
				t.Errorf("got %+v", w.Answers)
			}
		})
	}
}

func TestWrongTokenIsRefused(t *testing.T) {
	b := serve(t, nil)
	for name, token := range map[string]string{"wrong": "another token of the tests", "empty": "", "prefix": shared[:10]} {
		_, _, err := b.connect(t, token, hello("i", 1, 1))
		var refusal *ws.Refusal
		if !errors.As(err, &refusal) || refusal.Status != http.StatusUnauthorized {
			t.Errorf("%s: got %v, want 401", name, err)
		}
	}
}

func TestStreamReachesTheClientAndCarriesFirstBytes(t *testing.T) {
	b := serve(t, nil)
	s, _ := b.mustConnect(t, shared, hello("i", 1, 1, ssh.String()))
	go func() {
		st, o, err := s.AcceptOpen(t.Context())
		if err != nil || o.Tunnel != ssh || o.ID != "c1" {
			t.Errorf("open: %+v, %v", o, err)
			return
		}
		_ = st.Confirm()
		_, _ = io.Copy(st, st)
		_ = st.CloseWrite()
	}()
	d, err := b.plane.await(t, ssh, 1).Dial(t.Context(), &upstream.Visit{ID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = d.Conn.Write([]byte("hi"))
	_ = d.Conn.CloseWrite()
	if got, err := io.ReadAll(d.Conn); err != nil || string(got) != "hi" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = d.Conn.Close()
}

// The first datagram of a flow goes with the open where nobody else could be asked, and a refusal is told afterwards.
func TestFlowOfDatagramsIsNotWaitedFor(t *testing.T) {
	dns := tunnel.UDPName(5353)
	b := serve(t, nil)
	s, w := b.mustConnect(t, shared, hello("i", 1, 1, dns.String(), "udp/0"))
	if w.Answers[0].Refused != "" || w.Answers[1].Refused == "" {
		t.Fatalf("answers %+v", w.Answers)
	}
	member := b.plane.await(t, dns, 1)
	next := func() (d upstream.Dialed, st *mux.Stream) {
		d, err := member.Dial(t.Context(), &upstream.Visit{ID: "c1", Datagrams: true}) // the client has not answered
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Conn.Write([]byte("who?")); err != nil {
			t.Fatal(err)
		}
		st, o, err := s.AcceptOpen(t.Context())
		if err != nil || !o.Datagrams || o.Tunnel != dns {
			t.Fatalf("open: %+v, %v", o, err)
		}
		return d, st
	}
	d, st := next()
	if err := st.Confirm(); err != nil {
		t.Fatal(err)
	}
	near := udp.NewFramed(st)
	for range 2 {
		p, err := near.Next()
		if err != nil || string(p) != "who?" {
			t.Fatalf("the client got %q, %v", p, err)
		}
		if _, err := near.Write(nil); err != nil {
			t.Fatal(err)
		}
		if n, err := d.Conn.Read(make([]byte, 10)); n != 0 || err != nil {
			t.Errorf("an empty answer is %d bytes, %v", n, err)
		}
		_, _ = d.Conn.Write([]byte("who?"))
	}
	_ = d.Conn.Close()
	near.Release()

	d, st = next()
	if err := st.Refuse(uint8(tunnel.Refused), "nobody there"); err != nil {
		t.Fatal(err)
	}
	_, err := d.Conn.(interface{ Next() ([]byte, error) }).Next()
	if upstream.ReasonOf(err) != upstream.Refused {
		t.Errorf("a refusal is told as %v", err)
	}
	_ = d.Conn.Close()
}

func TestSecondMemberGetsWhatTheFirstRefused(t *testing.T) {
	b := serve(t, nil)
	refuser, _ := b.mustConnect(t, shared, hello("i1", 1, 1, ssh.String()))
	taker, _ := b.mustConnect(t, shared, hello("i2", 1, 1, ssh.String()))
	go func() {
		for {
			st, _, err := refuser.AcceptOpen(t.Context())
			if err != nil {
				return
			}
			_ = st.Refuse(uint8(tunnel.Refused), "no")
		}
	}()
	go func() {
		for {
			st, _, err := taker.AcceptOpen(t.Context())
			if err != nil {
				return
			}
			_ = st.Confirm()
			_ = st.CloseWrite()
		}
	}()
	u := b.plane.await(t, ssh, 2)
	for i := range 20 {
		d, err := u.Dial(t.Context(), &upstream.Visit{})
		if err != nil {
			t.Fatalf("dial %d: %v", i, err)
		}
		if got := d.Place.Member().Name(); got != "shop/i2" {
			t.Errorf("dial %d went to %s", i, got)
		}
		_ = d.Conn.Close()
	}
}

// TestClientThatDoesNotAcknowledge is a frozen client: its kernel takes the open, nobody answers.
func TestClientThatDoesNotAcknowledge(t *testing.T) {
	b := serve(t, nil)
	frozen, thaw := frozenClient(t, b, hello("i1", 1, 1, ssh.String()))
	defer thaw()
	taker, _ := b.mustConnect(t, shared, hello("i2", 1, 1, ssh.String()))
	go func() {
		for {
			st, _, err := taker.AcceptOpen(t.Context())
			if err != nil {
				return
			}
			_ = st.Confirm()
		}
	}()
	u := b.plane.await(t, ssh, 2)
	for range 2 { // one of two dials meets the frozen client first
		begun := time.Now()
		d, err := u.Dial(t.Context(), &upstream.Visit{})
		if err != nil || d.Place.Member().Name() != "shop/i2" {
			t.Fatalf("got %v, %v", d.Place, err)
		}
		if took := time.Since(begun); took >= openTimeout {
			t.Errorf("took %s", took)
		}
		_ = d.Conn.Close()
	}
	_ = frozen
}

// A visitor for whom there is another route goes there, though it has spoken already.
func TestAFrozenClientHoldsNobodyWhoCanGoElsewhere(t *testing.T) {
	b := serve(t, nil)
	_, thaw := frozenClient(t, b, hello("i1", 1, 1, ssh.String()))
	defer thaw()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	first := upstream.ReadFirst(near, 100, upstream.Begun{Read: []byte("hello")})
	defer func() { _, _ = first.Stop() }()
	begun := time.Now()
	_, err := b.plane.await(t, ssh, 1).Dial(t.Context(), &upstream.Visit{First: first, Elsewhere: true})
	var failed *upstream.DialError
	if !errors.As(err, &failed) || failed.Reason != upstream.TimedOut || failed.MaybeSent {
		t.Errorf("got %v, want a timeout that leaves the visitor to others", err)
	}
	if took := time.Since(begun); took > openTimeout/2 {
		t.Errorf("took %s", took)
	}
}

func TestNewerEpochEvictsTheOlderAtOnce(t *testing.T) {
	b := serve(t, nil)
	old, _ := b.mustConnect(t, shared, hello("i", 1, 1, ssh.String()))
	_, w := b.mustConnect(t, shared, hello("i", 2, 1, ssh.String()))
	if w.Answers[0].Refused != "" {
		t.Errorf("the port was still the older one's: %s", w.Answers[0].Refused)
	}
	if g := <-old.GoneAway(); g.Reason != tunnel.Fenced {
		t.Errorf("the older was told %q, want fenced", g.Reason)
	}
	awaitDone(t, old)
	b.plane.await(t, ssh, 1)
	if n := len(b.server.Clients()); n != 1 {
		t.Errorf("%d clients, want 1", n)
	}
}

func TestIdentityRules(t *testing.T) {
	tests := map[string]struct {
		fresh   tunnel.Hello
		refused tunnel.GoAwayReason // "" if it is let in
		evicted bool
	}{
		"older epoch":                {hello("i", 4, 9, ssh.String()), tunnel.Fenced, false},
		"same epoch, same counter":   {hello("i", 5, 5, ssh.String()), tunnel.Replaced, false},
		"same epoch, lower counter":  {hello("i", 5, 4, ssh.String()), tunnel.Replaced, false},
		"same epoch, higher counter": {hello("i", 5, 6, ssh.String()), "", true},
		"newer epoch":                {hello("i", 6, 1, ssh.String()), "", true},
		"another instance":           {hello("j", 1, 1, ssh.String()), "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			old, _ := b.mustConnect(t, shared, hello("i", 5, 5, ssh.String()))
			_, _, err := b.connect(t, shared, tt.fresh)
			var gone *tunnel.GoAway
			errors.As(err, &gone)
			switch {
			case tt.refused != "" && (gone == nil || gone.Reason != tt.refused):
				t.Errorf("got %v, want refused: %s", err, tt.refused)
			case tt.refused == "" && err != nil:
				t.Errorf("got %v, want it let in", err)
			}
			if tt.evicted {
				awaitDone(t, old)
			} else if old.Err() != nil {
				t.Errorf("the older session ended: %v", old.Err())
			}
		})
	}
}

// TestNobodyTakesOverAClientOfAnotherToken repeats a client's names with another credential.
func TestNobodyTakesOverAClientOfAnotherToken(t *testing.T) {
	file, token := tokenFile(t, "{hosts: [\"*\"], ports: [\"1-65535\"]}")
	verifier, err := auth.New(auth.Config{Shared: auth.NewSecret(shared), File: file})
	if err != nil {
		t.Fatal(err)
	}
	b := serve(t, func(c *Config) { c.Verify = verifier.Verify })
	victim, _ := b.mustConnect(t, shared, hello("i", 1, 1, ssh.String()))
	b.mustConnect(t, token, hello("i", 99, 99, ssh.String()))
	if victim.Err() != nil {
		t.Errorf("taken over: %v", victim.Err())
	}
	b.plane.await(t, ssh, 2)
}

// TestGrantIsAskedAgainForEachStream shrinks a token while its session is open.
func TestGrantIsAskedAgainForEachStream(t *testing.T) {
	file, token := tokenFile(t, `{ports: ["2222"]}`)
	verifier, err := auth.New(auth.Config{File: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		_ = verifier.Run(ctx)
	}()
	defer func() {
		cancel()
		<-watching
	}()
	b := serve(t, func(c *Config) { c.Verify = verifier.Verify })
	s, w := b.mustConnect(t, token, hello("i", 1, 1, ssh.String(), "tcp/2223", "http/a.example.com"))
	if w.Answers[0].Refused != "" || w.Answers[1].Refused == "" || w.Answers[2].Refused == "" {
		t.Fatalf("answers: %+v", w.Answers)
	}
	go func() {
		for {
			st, _, err := s.AcceptOpen(ctx)
			if err != nil {
				return
			}
			_ = st.Confirm()
		}
	}()
	u := b.plane.await(t, ssh, 1)
	d, err := u.Dial(t.Context(), &upstream.Visit{})
	if err != nil {
		t.Fatal(err)
	}
	_ = d.Conn.Close()

	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	narrowed := strings.Replace(string(content), `ports: ["2222"]`, `ports: ["4444"]`, 1)
	if err := os.WriteFile(file, []byte(narrowed), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the narrowed grant to reach the open session", func() bool {
		d, err := u.Dial(t.Context(), &upstream.Visit{})
		if err == nil {
			_ = d.Conn.Close()
		}
		return upstream.ReasonOf(err) == upstream.NotAllowed && err != nil
	})
	if err := os.WriteFile(file, []byte("tokens: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if g := <-s.GoneAway(); g.Reason != tunnel.Revoked {
		t.Errorf("told %q, want revoked", g.Reason)
	}
	awaitDone(t, s)
	b.plane.await(t, ssh, 0)
}

func TestClientMayOpenNothing(t *testing.T) {
	b := serve(t, nil)
	s, _ := b.mustConnect(t, shared, hello("i", 1, 1))
	for _, name := range []tunnel.Name{ssh, tunnel.PrivateName("db")} {
		var refusal *mux.Refusal
		if _, err := s.Open(t.Context(), tunnel.Open{Tunnel: name}); !errors.As(err, &refusal) || refusal.Code != mux.TooManyStreams {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
}

func TestHelloThatIsNotAcceptable(t *testing.T) {
	b := serve(t, nil)
	bad := hello("i", 1, 1)
	bad.ID = "two words"
	_, _, err := b.connect(t, shared, bad)
	var gone *tunnel.GoAway
	if !errors.As(err, &gone) || gone.Reason != tunnel.Rejected {
		t.Errorf("got %v, want rejected", err)
	}
}

func TestClientThatGoesAwayGetsNoNewStreams(t *testing.T) {
	b := serve(t, nil)
	s, _ := b.mustConnect(t, shared, hello("i", 1, 1, ssh.String()))
	b.plane.await(t, ssh, 1)
	if err := s.GoAway(tunnel.GoAway{Reason: tunnel.Shutdown}); err != nil {
		t.Fatal(err)
	}
	b.plane.await(t, ssh, 0)
	if s.Err() != nil {
		t.Errorf("the session ended: %v", s.Err())
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// tokenFile makes a token file of one token with the offers that are given in YAML.
func tokenFile(t *testing.T, offer string) (path, token string) {
	t.Helper()
	token = "cvt_0123abcd_" + strings.Repeat("k", 43)
	sum := sha256.Sum256([]byte(token))
	path = filepath.Join(t.TempDir(), "tokens.yaml")
	content := fmt.Sprintf("tokens:\n  - id: 0123abcd\n    name: test\n    hash: sha256:%s\n    offer: %s\n", hex.EncodeToString(sum[:]), offer)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, token
}
