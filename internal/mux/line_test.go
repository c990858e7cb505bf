package mux_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"culvert/internal/mux"
)

// line connects a round's client with its server, again and again, over cables that break as planned.
type line struct {
	r   *round
	cfg mux.Config

	mu       sync.Mutex
	made     int
	failed   int // tries in a row that gave no link
	near     []*cableEnd
	away     bool
	sessions map[mux.SessionID]*mux.Session
	serving  sync.WaitGroup
	notes    []string
}

func newLine(r *round, cfg mux.Config) *line {
	return &line{r: r, cfg: cfg, sessions: map[mux.SessionID]*mux.Session{}}
}

func (l *line) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes = append(l.notes, fmt.Sprintf("%s "+format, append([]any{time.Now().Format("05.000")}, args...)...))
}

func (l *line) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d cables, away %t, %v", l.made, l.away, l.notes)
}

var errAway = errors.New("away")

// cable gives the client's end of the next cable and hands the other one to the server.
func (l *line) cable(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, errAway
	}
	cfg := cableConfig{latency: l.r.latency}
	if l.made < len(l.r.cables) && l.failed < 3 { // more would be an absence longer than planned
		cfg = l.r.cables[l.made]
		if l.made == 0 && cfg.cuts[0].how != noFault { // the session begins by a whole ATTACH
			cfg.cuts[0].at += 70
		}
	}
	l.made++
	a, b := newCable(cfg)
	l.near = append(l.near, a)
	near, far := net.Conn(a), net.Conn(b)
	if l.r.carrier {
		near, far = carrierEnd{a}, carrierEnd{b}
	}
	l.serving.Go(func() { l.serve(ctx, far) })
	return near, nil
}

// serve is what a server does with a connection.
func (l *line) serve(_ context.Context, conn net.Conn) {
	g, err := mux.Greet(conn, 5*time.Second)
	if err != nil {
		return
	}
	id, joins := g.Joins()
	if !joins {
		s, err := g.Start(l.cfg)
		if err != nil {
			l.note("start: %v", err)
			return
		}
		l.mu.Lock()
		l.sessions[s.ID()] = s
		l.mu.Unlock()
		return
	}
	l.mu.Lock()
	s := l.sessions[id]
	l.mu.Unlock()
	if s == nil {
		g.Refuse(mux.UnknownSession, "unknown session")
		return
	}
	if err := g.Join(s); err != nil {
		l.note("join: %v", err)
	}
}

// connect starts the session. A cut may hit the handshake; then the next try is another session.
func (l *line) connect(ctx context.Context) (client, server *mux.Session) {
	for range 20 {
		conn, err := l.cable(ctx)
		if err != nil {
			return nil, nil
		}
		client, err := mux.Client(conn, l.cfg)
		if err != nil {
			l.note("client: %v", err)
			continue
		}
		l.serving.Wait()
		l.mu.Lock()
		server := l.sessions[client.ID()]
		l.mu.Unlock()
		if server != nil {
			return client, server
		}
		l.note("the server has no session")
		client.Close(nil)
	}
	return nil, nil
}

// add dials one more link.
func (l *line) add(ctx context.Context) error {
	conn, err := l.cable(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err = l.r.client.Attach(ctx, conn)
	l.note("attach: %v", err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed++; err == nil {
		l.failed = 0
	}
	return err
}

// keep dials when the session wants a link, and again until there is one.
func (l *line) keep(ctx context.Context) {
	for {
		select {
		case <-l.r.client.Wants():
		case <-l.r.client.Done():
			return
		case <-ctx.Done():
			return
		}
		for {
			wait(ctx, l.r.chance(l.r.grow/4))
			err := l.add(ctx)
			if err == nil || ctx.Err() != nil || l.r.client.Err() != nil || errors.Is(err, mux.ErrUnknownSession) {
				break
			}
			if l.r.client.Live() > 0 {
				break
			}
			wait(ctx, 100*time.Millisecond)
		}
	}
}

// grow adds links up to the plan's number.
func (l *line) grow(ctx context.Context) {
	for ctx.Err() == nil && l.r.client.Err() == nil {
		if live := l.r.client.Live(); live > 0 && live < l.r.links {
			_ = l.add(ctx) // one too many is refused
		}
		wait(ctx, l.r.grow+l.r.chance(l.r.grow))
	}
}

// stayAway breaks all links and lets none through for the planned time.
func (l *line) stayAway(ctx context.Context) {
	if l.r.away.length == 0 {
		return
	}
	wait(ctx, l.r.away.at)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	l.away = true
	cables := slices.Clone(l.near)
	l.mu.Unlock()
	l.note("away")
	for _, c := range cables {
		c.Break(l.r.away.how)
	}
	wait(ctx, l.r.away.length)
	l.mu.Lock()
	l.away = false
	l.mu.Unlock()
	l.note("back")
}

// close ends what is left of the cables and of sessions whose handshake was cut, and waits.
func (l *line) close() {
	l.mu.Lock()
	sessions, cables := l.sessions, l.near
	l.sessions = nil
	l.mu.Unlock()
	for _, c := range cables {
		c.Break(torn)
	}
	l.serving.Wait()
	for _, s := range sessions {
		s.Close(nil)
	}
}
