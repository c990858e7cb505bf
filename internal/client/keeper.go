package client

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"culvert/internal/mux"
	"culvert/internal/tunnel"
)

// keeper keeps a session to one server up.
type keeper struct {
	client *Client
	url    *url.URL
	link   *link
	log    *slog.Logger

	sessions uint64 // begun so far
	backoff  backoff
	failure  string // the last failure that was logged as news
}

// steady is how long a session must have held for the next attempt to come at once.
const steady = 10 * time.Second

// replacedDelay keeps two URLs that lead to one server from replacing each other's session in turn.
const replacedDelay = time.Minute

// run connects again and again, for ever, until the context ends.
func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := k.session(ctx)
		if ctx.Err() != nil {
			return
		}
		k.report(err)
		var gone *tunnel.GoAway
		if errors.As(err, &gone) && gone.Reason == tunnel.Replaced {
			sleep(ctx, replacedDelay)
			continue
		}
		k.backoff.wait(ctx)
	}
}

// report logs a failure at warn the first time and when it changes, and at debug while it only repeats itself.
func (k *keeper) report(err error) {
	level := slog.LevelWarn
	if err.Error() == k.failure {
		level = slog.LevelDebug
	}
	k.failure = err.Error()
	k.log.Log(context.Background(), level, "not connected, trying again", "err", err, "within", k.backoff.ceiling())
}

// session connects and serves until the session ends; the error says why it ended or did not begin.
func (k *keeper) session(ctx context.Context) error {
	conn, err := k.link.connect(ctx)
	if err != nil {
		return err
	}
	m, err := mux.Client(conn, mux.Config{Budget: k.client.cfg.Budget, Log: k.log.With("subsystem", "mux")})
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
	k.failure = ""
	k.welcome(hello, welcome)
	begun := time.Now()
	err = k.serve(ctx, s)
	k.fenced(err, hello.Instance)
	if time.Since(begun) > steady {
		k.backoff.reset()
	}
	return err
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
		if a.Refused != "" {
			k.log.Error("server refused the tunnel", "tunnel", a.Tunnel, "reason", a.Refused)
			continue
		}
		k.log.Info("tunnel is up", "tunnel", a.Tunnel, "at", a.Address)
	}
}

// serve hands the session's connections to local services until the session ends, or until the context has ended
// and the open ones are through or out of time. It returns with no goroutine of the session left.
func (k *keeper) serve(ctx context.Context, s *tunnel.Session) error {
	streams, abort := context.WithCancel(context.Background())
	var open sync.WaitGroup
	taking, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		k.take(ctx, streams, s, &open)
		close(taking)
		refuse(streams, s)
	}()
	err := k.watch(ctx, s)
	if err == nil {
		k.log.Info("going down", "open", max(0, s.Streams()-1))
		_ = s.GoAway(tunnel.GoAway{Reason: tunnel.Shutdown, Detail: "the client is going down"})
		<-taking // no connection is begun from here on
		k.drain(s, &open)
	}
	abort()
	s.Shutdown(nil)
	<-ended
	open.Wait()
	return err
}

// take begins the connections that the server asks for, until the context or the session ends.
func (k *keeper) take(ctx, streams context.Context, s *tunnel.Session, open *sync.WaitGroup) {
	for {
		st, o, err := s.AcceptOpen(ctx)
		if err != nil {
			return
		}
		open.Go(func() { k.client.handle(streams, st, o) })
	}
}

// refuse sends what the server still asks for elsewhere, until the context or the session ends.
func refuse(ctx context.Context, s *tunnel.Session) {
	for {
		st, _, err := s.AcceptOpen(ctx)
		if err != nil {
			return
		}
		_ = st.Refuse(uint8(tunnel.GoingAway), "the client is going down")
	}
}

// watch returns nil when the context has ended, else why the session is over.
func (k *keeper) watch(ctx context.Context, s *tunnel.Session) error {
	var gone error
	for {
		select {
		case <-ctx.Done():
			return nil
		case g := <-s.GoneAway():
			k.log.Info("server is going away", "reason", g.Reason, "detail", g.Detail)
			gone = &g
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

// drain waits until no connection is open, the session is over, or the time is up.
func (k *keeper) drain(s *tunnel.Session, open *sync.WaitGroup) {
	idle := make(chan struct{})
	go func() {
		open.Wait()
		close(idle)
	}()
	timer := time.NewTimer(k.client.cfg.Drain)
	defer timer.Stop()
	select {
	case <-idle:
	case <-s.Done():
	case <-timer.C:
		k.log.Warn("connections were still open at the end of the drain", "streams", s.Streams()-1)
	}
}
