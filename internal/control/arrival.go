package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/tunnel"
	carrier "culvert/internal/tunnel/tls"
	"culvert/internal/tunnel/ws"
)

var (
	errNoToken      = errors.New("no token: send it as Authorization: Bearer")
	errNoTokenShown = errors.New("no token: this server wants one")
)

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

// ServeTLS authenticates a client on a connection of bare TLS, which it takes over, and starts its session. It returns
// once the token was answered; admit lifts the limits that hold before. The error says why there is no session. Until
// then it may be ended by closing the connection.
func (s *Server) ServeTLS(conn *tls.Conn, admit func()) error {
	token, err := carrier.ReadToken(conn)
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("token: %w", err)
	}
	bearer, err := s.cfg.Verify(token)
	if err != nil {
		if token == "" {
			err = errNoTokenShown
		}
		s.refusals.log(s.cfg.Log, conn.RemoteAddr().String(), err)
		return refuse(conn, carrier.Refused, err)
	}
	if !s.begin() {
		return refuse(conn, carrier.GoingDown, errStopping)
	}
	admit()
	if err := carrier.Answer(conn, carrier.OK, ""); err != nil {
		s.wait.Done()
		_ = conn.Close()
		return fmt.Errorf("answer: %w", err)
	}
	s.start(carrier.Accept(conn), bearer, conn.RemoteAddr().String())
	return nil
}

// refuse tells a client why it gets no session.
func refuse(conn *tls.Conn, status carrier.Status, why error) error {
	return errors.Join(why, carrier.Answer(conn, status, why.Error()), conn.Close())
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
