package entrypoint

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
)

// Config is what a TCP entrypoint needs.
type Config struct {
	Addr    string         // host:port; an empty host is every address of the machine, port 0 any free port
	Allow   []netip.Prefix // the sources that may connect; empty: all
	Inherit Inheritance
	Log     *slog.Logger
	// OnRefused, if set, is called for each connection that was closed at once, with a Refused reason.
	OnRefused func(reason string)
}

// TCP is an entrypoint for plain connections.
type TCP struct {
	ln *listener

	mu      sync.Mutex
	aborted bool
	abort   func() // ends the handlers' context, while Run runs
}

// ListenTCP opens the entrypoint; connections wait in the kernel until Run.
func ListenTCP(cfg Config) (*TCP, error) {
	ln, err := listen(listening{cfg.Addr, cfg.Allow, cfg.Inherit, cfg.Log, cfg.OnRefused})
	if err != nil {
		return nil, err
	}
	return &TCP{ln: ln}, nil
}

// Addr is the address that is listened on.
func (t *TCP) Addr() net.Addr { return t.ln.tcp.Addr() }

// Allow changes which sources may connect, for connections to come; empty: all.
func (t *TCP) Allow(sources []netip.Prefix) { t.ln.allow.Store(&sources) }

// Run hands each connection to handle, which owns it, returns at once, and has over called once when it is closed. When
// ctx ends or Close is called, no more are accepted, and Run returns nil once all are over. The context that handle gets
// outlives ctx, so that open connections may end in peace; Abort ends it.
func (t *TCP) Run(ctx context.Context, handle func(_ context.Context, _ *net.TCPConn, over func())) error {
	handling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	t.onAbort(cancel)
	defer context.AfterFunc(ctx, func() { _ = t.Close() })()
	var open sync.WaitGroup
	over := func() {
		t.ln.release()
		open.Done()
	}
	err := t.accept(func(c *net.TCPConn) {
		open.Add(1)
		handle(handling, c, over)
	})
	_ = t.Close()
	open.Wait()
	return err
}

func (t *TCP) onAbort(abort func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.abort = abort
	if t.aborted {
		abort()
	}
}

func (t *TCP) accept(handle func(*net.TCPConn)) error {
	for {
		c, err := t.ln.accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		handle(c)
	}
}

// Close stops accepting; open connections go on. Connections that the kernel holds are reset.
func (t *TCP) Close() error { return t.ln.Close() }

// Abort stops accepting and ends the context of all handlers.
func (t *TCP) Abort() {
	_ = t.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.aborted = true
	if t.abort != nil {
		t.abort()
	}
}
