// Package control is the server's end of client sessions: it authenticates them, holds them, publishes what they
// offer, and opens streams in them.
//
// A session's goroutines and its membership of upstreams end with its connection. What a client may do is asked of
// its credential when it offers and again for each stream, so that a credential that shrinks, expires or is revoked
// reaches sessions that are open.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/tunnel"
	"culvert/internal/tunnel/ws"
	"culvert/internal/upstream"
)

// Publisher makes tunnels reachable for visitors.
type Publisher interface {
	// Publish adds a member to the tunnel's upstream, and opens the tunnel to visitors if it is its first.
	// The error is for the client's eyes.
	Publish(o Offered) (Publication, error)
	// Settle returns when visitors reach everything that was published before.
	Settle()
}

// Offered is what a client offers and its credential covers.
type Offered struct {
	Name   tunnel.Name
	Member upstream.Member
	Offer  tunnel.Offer // with what the client said beside the name
	Client string       // who it is, for logs and status: id and instance

	// Divert is set for an offer of that kind: a route is to be placed before the others of its entrypoint, to Member alone. It is
	// withdrawn when its time is over, when an operator, its client or its token ends it, and while the client is out of reach;
	// all that is counted, logged and told to the client here. A client's new session may publish a divert again before the
	// old publication is withdrawn. The publication should be a DivertPublication.
	Divert *Divert
	// End ends a divert for a reason of the publisher's own, such as that the entrypoint is gone. It calls Withdraw, so that no
	// lock may be held that this takes. Nil for other offers.
	End func(reason string)
	// MayDivert says whether the client may divert an entrypoint's traffic: it is told of no others. Nil for other offers.
	MayDivert func(entrypoint string) bool
}

// Publication is one member's place in a tunnel.
type Publication interface {
	// Address is where visitors reach the tunnel, as far as the server knows.
	Address() string
	// Withdraw takes the member out. Its open connections go on.
	Withdraw()
}

// HealthPublication is a Publication that wants to know what the client's own check of the service says. The member's
// Usable is false while the service is down, also before it is published: Offered.Offer.Down says so.
type HealthPublication interface {
	Publication
	// Health is called with each change. The cause is the client's words, and nil if the service is up.
	Health(up bool, cause error)
}

// Config is what a Server needs. All fields are required.
type Config struct {
	Software  string // name and version, told to clients
	Verify    func(token string) (*auth.Bearer, error)
	Admit     func(*http.Request) // lifts the limits that hold before authentication
	Publisher Publisher
	Ports     auth.Ports // which public ports clients may open at all
	HTTP, TCP bool       // which kinds of tunnel this server carries
	Budget    *mux.Budget
	Metrics   *Metrics
	Log       *slog.Logger
}

// Server holds the sessions of clients. It is the http.Handler of ws.Path; ServeTLS is for those who come by bare TLS.
type Server struct {
	cfg Config

	wait sync.WaitGroup // sessions

	refusals refusals

	mu       sync.Mutex
	closing  bool                            // no new sessions
	stopped  bool                            // no new links of old ones either
	arriving map[net.Conn]context.CancelFunc // have not said hello yet
	sessions map[identity]*session
	byID     map[mux.SessionID]*session // those of sessions, for links that join

	diverting sync.Mutex // taken within a session's mu, and with no other inside
	diverts   map[tunnel.Name]*live
}

// New makes a server without sessions.
func New(cfg Config) *Server {
	return &Server{
		cfg: cfg, arriving: make(map[net.Conn]context.CancelFunc),
		sessions: make(map[identity]*session), byID: make(map[mux.SessionID]*session),
		diverts: make(map[tunnel.Name]*live),
	}
}

// Run closes sessions whose credential is no longer valid, until the context ends; then it closes all sessions and
// returns when nothing of them is left.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.closeInvalid()
			s.endForbidden()
			s.closeAway()
		case <-ctx.Done():
			s.stop()
			return nil
		}
	}
}

// stop ends all sessions and waits for them.
func (s *Server) stop() {
	s.mu.Lock()
	s.closing, s.stopped = true, true
	arriving := slices.Collect(maps.Values(s.arriving))
	s.mu.Unlock()
	for _, abort := range arriving {
		s.wait.Go(abort)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	for _, c := range s.list() {
		s.wait.Go(func() { c.tunnel.Finish(ctx) })
	}
	s.wait.Wait()
}

// stopGrace is how long clients get to take what is on its way to them.
const stopGrace = time.Second

var errStopping = errors.New("server is stopping")

// goAwayGrace is how long a go-away gets to reach its client before the session is closed.
const goAwayGrace = time.Second

func (s *Server) closeInvalid() {
	for _, c := range s.list() {
		if err := c.bearer.Valid(); err != nil {
			if s.end(c, tunnel.GoAway{Reason: tunnel.Revoked, Detail: err.Error()}, err) {
				c.log.Warn("session closed: its credential is not valid any more", "reason", err)
			}
		}
	}
}

// awayLimit is how many seconds a client may be out of reach while the server goes down: who is away then is not waited for.
const awayLimit = 2

// closeAway ends, while the server goes down, the sessions of clients that are out of reach, whose connections would hold it
// up to the end of the drain. It runs once a second.
func (s *Server) closeAway() {
	closing := s.goesDown()
	for _, c := range s.list() {
		if !closing || c.tunnel.Live() > 0 {
			c.away = 0
			continue
		}
		if c.away++; c.away == awayLimit {
			s.wait.Go(func() { c.tunnel.Close(errStopping) })
		}
	}
}

// end withdraws a client at once, tells it why and closes its session, without making the caller wait. False means that the
// session is being ended already.
func (s *Server) end(c *session, g tunnel.GoAway, cause error) bool {
	if !c.ends() {
		return false
	}
	s.withdraw(c)
	s.wait.Go(func() {
		_ = c.tunnel.GoAway(g)
		awaitEnd(c.tunnel, goAwayGrace)
		c.tunnel.Close(cause)
	})
	return true
}

// GoAway tells all clients that the server takes no new sessions and will close theirs. It waits for those who do not listen
// until the context ends.
func (s *Server) GoAway(ctx context.Context) {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	var telling sync.WaitGroup
	for _, c := range s.list() {
		telling.Add(1)
		s.wait.Go(func() {
			defer telling.Done()
			_ = c.tunnel.GoAway(tunnel.GoAway{Reason: tunnel.Shutdown, Detail: "the server is going down"})
		})
	}
	told := make(chan struct{})
	s.wait.Go(func() {
		telling.Wait()
		close(told)
	})
	select {
	case <-told:
	case <-ctx.Done():
	}
}

func (s *Server) goesDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// AwaitMoved is for a server that has told its clients to go away while another process takes its place: it returns when
// each client has a session there, has gone or is out of reach, or when the context ends. Older clients come only after
// their session's end, and are not waited for longer than that.
func (s *Server) AwaitMoved(ctx context.Context) {
	tick := time.NewTicker(movedTick)
	defer tick.Stop()
	for {
		stays := func(c *session) bool { return !c.moved.Load() && c.tunnel.Live() > 0 }
		if !slices.ContainsFunc(s.list(), stays) {
			return
		}
		select {
		case <-tick.C: // once in the life of a server: not worth a channel from each session
		case <-ctx.Done():
			return
		}
	}
}

const movedTick = 50 * time.Millisecond

func (s *Server) list() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*session, 0, len(s.sessions))
	for _, c := range s.sessions {
		list = append(list, c)
	}
	return list
}

// ServeHTTP authenticates a client and starts its session. It answers in plain words what is wrong otherwise.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bearer, err := s.authenticate(r)
	if err != nil {
		s.refusals.log(s.cfg.Log, r.RemoteAddr, err)
		w.Header().Set("Www-Authenticate", "Bearer")
		w.Header().Set("Connection", "close")
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	if !s.begin() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, errStopping.Error(), http.StatusServiceUnavailable)
		return
	}
	s.cfg.Admit(r)
	conn, err := ws.Upgrade(w, r)
	if err != nil {
		s.wait.Done()
		s.cfg.Log.Info("no websocket", "remote", r.RemoteAddr, "err", err)
		return
	}
	s.start(conn, bearer, strings.Clone(r.RemoteAddr))
}

// begin counts a connection that is to be received, unless the server takes no more. One that is going down still takes
// those of sessions that it has.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.wait.Add(1) // before Run can wait
	}
	return !s.stopped
}

// start starts a session that begin has counted.
func (s *Server) start(conn net.Conn, bearer *auth.Bearer, remote string) {
	// Not in the caller's goroutine, which would keep a request's buffers for the life of the session.
	go func() {
		defer s.wait.Done()
		c, err := s.receive(conn, bearer, remote)
		s.cfg.Log.Debug("connection received", "remote", remote, "err", err)
		if c != nil {
			s.wait.Go(func() { s.serve(c) }) // on a stack of its own, which stays small
		}
	}()
}

// receive sees a client's connection through: a new session, or one more link of a session that is there. Until it is
// known which, and until a new one's hello, it may be aborted by stop. A new session that has begun is to be served.
func (s *Server) receive(conn net.Conn, bearer *auth.Bearer, remote string) (*session, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	s.mu.Lock()
	stopped := s.stopped
	s.arriving[conn] = cancel
	s.mu.Unlock()
	arrived := func() {
		s.mu.Lock()
		delete(s.arriving, conn)
		s.mu.Unlock()
	}
	defer arrived()
	if stopped {
		return nil, errors.Join(errStopping, conn.Close())
	}
	g, err := mux.Greet(conn, tunnel.HelloTimeout)
	if err != nil {
		return nil, err
	}
	if id, joins := g.Joins(); joins {
		return nil, s.join(g, id, bearer, remote)
	}
	m, err := g.Start(mux.Config{
		MaxStreams: clientStreams, Budget: s.cfg.Budget, Log: s.cfg.Log.With("subsystem", "mux"),
	})
	if err != nil {
		return nil, err
	}
	t, hello, err := tunnel.Accept(ctx, m)
	if err != nil {
		return nil, err
	}
	arrived()
	c, err := s.admit(t, hello, bearer, remote)
	if err != nil {
		t.Close(nil)
		return nil, err
	}
	return c, nil
}

// join adds a link to a session of the same credential. A session that this server does not have, because it was
// restarted or gave it up, is news that lets the client start a new one at once.
func (s *Server) join(g *mux.Greeting, id mux.SessionID, bearer *auth.Bearer, remote string) error {
	s.mu.Lock()
	c := s.byID[id]
	s.mu.Unlock()
	if c == nil || c.bearer.ID() != bearer.ID() {
		g.Refuse(mux.UnknownSession, "this server does not have the session")
		return fmt.Errorf("join from %s: unknown session", remote)
	}
	if err := g.Join(c.tunnel.Session); err != nil {
		return fmt.Errorf("join from %s: %w", remote, err)
	}
	c.movedTo(remote)
	c.log.Debug("client has another link", "from", remote)
	return nil
}

// clientStreams is how many streams a client may open: its control stream.
const clientStreams = 1

var errNoToken = errors.New("no token: send it as Authorization: Bearer")

func (s *Server) authenticate(r *http.Request) (*auth.Bearer, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = ""
	}
	bearer, err := s.cfg.Verify(token)
	if err != nil && token == "" {
		return nil, errNoToken
	}
	return bearer, err
}

// admit begins a session: it makes the client's tunnels reachable and says welcome.
func (s *Server) admit(t *tunnel.Session, hello tunnel.Hello, bearer *auth.Bearer, remote string) (*session, error) {
	if err := hello.Check(); err != nil {
		_ = t.GoAway(tunnel.GoAway{Reason: tunnel.Rejected, Detail: err.Error()})
		awaitEnd(t, goAwayGrace)
		return nil, err
	}
	c := &session{
		tunnel: t, hello: hello, bearer: bearer, remote: remote, since: time.Now(),
		wake: make(chan struct{}, 1), diverts: make(map[tunnel.Name]*live),
		log: s.cfg.Log.With("client", hello.ID, "instance", hello.Instance, "remote", remote),
	}
	old, refused := s.enter(c)
	if refused != nil {
		c.log.Warn("session refused", "reason", refused.Reason)
		_ = t.GoAway(*refused)
		awaitEnd(t, goAwayGrace)
		return nil, refused
	}
	answers := s.publish(c, hello.Offers)
	if old != nil { // only now, so that no visitor meets a tunnel without a member
		s.end(old, evicted(old.hello, c.hello), errReplaced)
	}
	if err := t.Welcome(tunnel.Welcome{Software: s.cfg.Software, Answers: answers}); err != nil {
		s.withdraw(c)
		s.leave(c)
		return nil, fmt.Errorf("welcome: %w", err)
	}
	c.log.Info("client connected", "upstreams", strings.Join(c.upstreams(), ", "))
	return c, nil
}

// serve sees a session to its end.
func (s *Server) serve(c *session) {
	c.serve(s)
	c.log.Info("client disconnected", "reason", c.tunnel.Err(), "after", time.Since(c.since).Round(time.Millisecond))
	s.withdraw(c)
	s.leave(c)
	c.tunnel.Close(nil)
}

func awaitEnd(t *tunnel.Session, grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-t.Done():
	case <-timer.C:
	}
}

// Client is what is known of a connected client.
type Client struct {
	ID, Instance, RemoteAddr string
	Since                    time.Time
	Labels                   map[string]string
	Upstreams                []string // in the form of the status command
	Tunnels                  []Tunnel
	RTT                      time.Duration
	Links                    int // 0: out of reach, and its connections wait
	Streams                  int
	Resumes                  int64 // losses of links that its connections have survived
	Reconnects               uint64
}

// Tunnel is one tunnel of a client, with the address for visitors.
type Tunnel struct {
	Name, Address string
	Down          string // why the client's check says that its service is down; "" if it does not
}

// Clients lists the connected clients, the oldest session first.
func (s *Server) Clients() []Client {
	var clients []Client
	for _, c := range s.list() {
		clients = append(clients, c.info())
	}
	slices.SortFunc(clients, func(a, b Client) int { return a.Since.Compare(b.Since) })
	return clients
}
