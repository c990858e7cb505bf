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
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/tunnel"
)

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
