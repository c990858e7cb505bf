package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"culvert/internal/mux"
	"culvert/internal/tunnel"
)

// keeper keeps a session to one server up.
type keeper struct {
	client *Client
	link   *link
	log    *slog.Logger

	// leaving are sessions whose server goes down. They serve to their end, beside the one that takes their place.
	leaving []*tunnel.Session
	serving sync.WaitGroup

	sessions uint64 // begun so far
	backoff  backoff
	news     news
}

// news is what has been logged of failures.
type news struct {
	mu   sync.Mutex
	last string // failure
}

// steady is how long a session must have held for the next attempt to come at once.
const steady = 10 * time.Second

// longestPause is the most that a server can ask for. It also keeps two URLs that lead to one server from replacing each
// other's session in turn.
const longestPause = time.Minute

// run connects again and again, for ever, until the context ends.
func (k *keeper) run(ctx context.Context) {
	defer k.serving.Wait()
	for ctx.Err() == nil {
		err := k.session(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := pauseAfter(err)
		if failed := k.client.cfg.Watch.Failed; failed != nil {
			failed(err)
		} else {
			k.report(err, pause)
		}
		sleep(ctx, pause)
		k.backoff.wait(ctx)
	}
}

// pauseAfter is what the server has asked for, or what a client that is in its own way owes it.
func pauseAfter(err error) time.Duration {
	var gone *tunnel.GoAway
	switch {
	case !errors.As(err, &gone):
		return 0
	case gone.Reason == tunnel.Replaced:
		return longestPause
	default:
		return max(0, min(gone.After, longestPause))
	}
}

// report tells the operator of a failure.
func (k *keeper) report(err error, pause time.Duration) {
	k.log.Log(context.Background(), k.news.level(err), "not connected, trying again", "err", err, "within", pause+k.backoff.ceiling())
}

// level is warn for a failure that is news, and debug for one that only repeats itself.
func (n *news) level(err error) slog.Level {
	n.mu.Lock()
	defer n.mu.Unlock()
	if newest := gist(err); newest != n.last {
		n.last = newest
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// clear makes the next failure news.
func (n *news) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = ""
}

// gist is what of an error tells it from others: not the ports, which each attempt has anew.
func gist(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// session connects and serves until the session ends, or until its server goes down: then it still serves, but the caller
// can look for another server, or the process that takes that one's place. The error says why it ended or did not begin.
func (k *keeper) session(ctx context.Context) error {
	conn, err := k.link.connect(ctx)
	if err != nil {
		return err
	}
	m, err := mux.Client(conn, mux.Config{
		MaxLinks: k.client.cfg.MaxLinks, Budget: k.client.cfg.Budget, Log: k.log.With("subsystem", "mux"),
	})
	if err != nil {
		return err
	}
	hello := k.client.hello(k.sessions)
	s, welcome, err := tunnel.Connect(ctx, m, hello)
	if err != nil {
		k.fenced(err, hello.Instance)
		return err
	}
	k.sessions++
	k.news.clear()
	k.welcome(hello, welcome)
	k.moved()
	begun := time.Now()
	err = k.until(ctx, s, hello)
	k.fenced(err, hello.Instance)
	if time.Since(begun) > steady || errors.Is(err, mux.ErrUnknownSession) { // the server is there, and says so
		k.backoff.reset()
	}
	return err
}

// until serves the session and returns why it ended, or the go-away of a server that goes down.
func (k *keeper) until(ctx context.Context, s *tunnel.Session, hello tunnel.Hello) error {
	going, ended := make(chan *tunnel.GoAway, 1), make(chan error, 1)
	k.serving.Go(func() { ended <- k.serve(ctx, s, hello, going) })
	select {
	case err := <-ended:
		return err
	case g := <-going:
		k.leaving = append(k.leaving, s)
		return g
	}
}

// moved tells servers that go down that the client has a session elsewhere, which does not wait for those that do not listen.
func (k *keeper) moved() {
	for _, s := range k.leaving {
		k.serving.Go(func() {
			_ = s.GoAway(tunnel.GoAway{Reason: tunnel.Moved, Detail: "the client has a session elsewhere"}) // or it has ended
		})
	}
	k.leaving = nil
}

// addLinks gives the session a link whenever it wants one: at once when it needs more, and again and again when it has
// none, because its connections wait for one.
func (k *keeper) addLinks(ctx context.Context, s *tunnel.Session) {
	b := backoff{most: pausedDelay}
	failed := false
	for {
		select {
		case <-s.Wants():
		case <-ctx.Done():
			return
		}
		err := k.addLink(ctx, s)
		switch {
		case err == nil:
			b.reset()
			if failed {
				k.log.Info("connected again")
			}
			failed = false
			k.news.clear()
			k.log.Debug("another link", "links", s.Live())
		case s.Live() > 0: // it can do without
			k.log.Debug("no further link", "err", err)
			b.wait(ctx)
		case ctx.Err() != nil, ended(s): // who waits for its end tells why
			return
		default:
			failed = true
			k.log.Log(ctx, k.news.level(err), "connection lost, trying again", "err", err, "within", b.ceiling())
			b.wait(ctx)
			s.Want()
		}
	}
}

func ended(s *tunnel.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

func (k *keeper) addLink(ctx context.Context, s *tunnel.Session) error {
	conn, err := k.link.connect(ctx)
	if err != nil {
		return err
	}
	return s.Attach(ctx, conn)
}

func (k *keeper) fenced(err error, instance string) {
	var gone *tunnel.GoAway
	if errors.As(err, &gone) && gone.Reason == tunnel.Fenced {
		k.client.becomeAnother(instance)
	}
}

// welcome tells the operator what became of each offer.
func (k *keeper) welcome(hello tunnel.Hello, w tunnel.Welcome) {
	k.log.Info("connected", "client_id", hello.ID, "server_version", w.Software)
	for _, a := range w.Answers {
		k.client.answered(a)
		if a.Refused != "" {
			if k.client.cfg.Watch.Answered != nil {
				continue
			}
			k.log.Error("server refused the tunnel", "tunnel", a.Tunnel, "reason", a.Refused)
			continue
		}
		k.log.Info("tunnel is up", "tunnel", a.Tunnel, "at", a.Address)
	}
}

// serve hands the session's connections to local services until the session ends, or until the context has ended
// and the open ones are through or out of time. It returns with no goroutine of the session left.
func (k *keeper) serve(ctx context.Context, s *tunnel.Session, hello tunnel.Hello, going chan<- *tunnel.GoAway) error {
	streams, abort := context.WithCancel(context.Background())
	defer abort()
	var open connections
	over := open.wait.Done
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			st, o, err := s.AcceptOpen(streams)
			if err != nil {
				return
			}
			if !open.add() {
				_ = st.Refuse(uint8(tunnel.GoingAway), "the client is going down")
				continue
			}
			k.client.handle(streams, st, &o, over)
		}
	}()
	var adding sync.WaitGroup
	adding.Go(func() { k.addLinks(streams, s) })
	adding.Go(func() { k.client.checks.report(streams, s, hello) })
	defer adding.Wait()
	err := k.watch(ctx, s, going)
	if err == nil {
		k.leave(s, &open, abort)
	}
	abort()
	s.Close(nil)
	<-accepting
	open.wait.Wait()
	return err
}

// connections are those of one session that local services have.
type connections struct {
	wait sync.WaitGroup

	mu     sync.Mutex
	closed bool
}

// add counts a connection, unless no more are taken.
func (c *connections) add() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wait.Add(1)
	}
	return !c.closed
}

// close takes no more. Only after it may wait be waited for.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// watch returns nil when the context has ended, else why the session is over. That the server goes down it tells at once;
// going has room for that.
func (k *keeper) watch(ctx context.Context, s *tunnel.Session, going chan<- *tunnel.GoAway) error {
	var gone error
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-s.TunnelEnded():
			k.ended(e)
		case g := <-s.GoneAway():
			k.log.Info("server is going away", "reason", g.Reason, "detail", g.Detail)
			gone = &g
			if g.Reason == tunnel.Shutdown {
				going <- &g
			}
		case <-s.Done():
			if gone != nil {
				return gone
			}
			select { // the go-away and the end may come together
			case g := <-s.GoneAway():
				return &g
			default:
				return s.Err()
			}
		}
	}
}

// ended tells the operator of a tunnel that the server has taken down.
func (k *keeper) ended(e tunnel.Ended) {
	k.log.Info("server has ended the tunnel", "tunnel", e.Tunnel, "reason", e.Reason)
	if ended := k.client.cfg.Watch.Ended; ended != nil {
		ended(e)
	}
}

// leave tells the server that the client goes, lets the open connections go on for as long as they may, and sees that the
// server gets what they have sent.
func (k *keeper) leave(s *tunnel.Session, open *connections, abort context.CancelFunc) {
	begun := time.Now()
	open.close()
	_ = s.GoAway(tunnel.GoAway{Reason: tunnel.Shutdown, Detail: "the client is going down"})
	idle := make(chan struct{})
	go func() {
		open.wait.Wait()
		close(idle)
	}()
	if !k.awaitIdle(s, idle) {
		k.log.Warn("connections were still open at the end of the drain", "streams", s.Streams()-1)
		abort()
	}
	if s.Live() == 0 { // nobody is there to finish with
		s.Close(nil)
		return
	}
	finish, cancel := context.WithTimeout(context.Background(), max(finishTime, k.client.cfg.Drain-time.Since(begun)))
	defer cancel()
	s.Finish(finish)
}

// openPause is the time between two lines on what is still open.
const openPause = 5 * time.Second

// awaitIdle waits for the session's connections, or its end, for as long as they may go on. It says whether that was enough.
func (k *keeper) awaitIdle(s *tunnel.Session, idle <-chan struct{}) bool {
	timer, tick := time.NewTimer(k.client.cfg.Drain), time.NewTicker(openPause)
	defer timer.Stop()
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.log.Info("waiting for connections to end", "open", s.Streams()-1)
		case <-timer.C:
			return false
		case <-idle:
			return true
		case <-s.Done():
			return true
		}
	}
}

// finishTime is the least that a server gets to take what is on its way to it.
const finishTime = 2 * time.Second
