package entrypoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// HTTPConfig is what an HTTP entrypoint needs.
type HTTPConfig struct {
	Addr              string         // host:port; an empty host is every address of the machine, port 0 any free port
	Allow             []netip.Prefix // the sources that may connect; empty: all
	ReadHeaderTimeout time.Duration  // for a whole request head; 10 s if zero
	IdleTimeout       time.Duration  // between requests of a connection; 2 min if zero
	MaxHeaderBytes    int            // of a request head; 64 KiB if zero
	Inherit           Inheritance
	Log               *slog.Logger
	// Reception, if not nil, has each connection received before its first request: requests then come from the address
	// that the balancer in front tells. Allow is about visitors then; OnRefused hears of the Reception's refusals too.
	Reception *Reception
	// OnRefused, if set, is called with a Refused reason for each connection that was closed at once, or whose last head
	// did not come whole.
	OnRefused func(reason string)
}

// HTTP is an entrypoint for HTTP/1.1 without TLS.
type HTTP struct {
	ln        *listener
	server    *http.Server
	reception *Reception // nil if connections need none

	conns   sync.WaitGroup // open connections, also those that an upgrade has taken over
	running atomic.Bool
	leaving atomic.Bool   // no more connections are accepted
	empty   chan struct{} // closed when the last one has ended after that
	emptied sync.Once
	ended   chan struct{} // closed when Run returns
	aborted chan struct{}
	abort   sync.Once
}

// ListenHTTP opens the entrypoint; connections wait in the kernel until Run.
func ListenHTTP(cfg HTTPConfig, handler http.Handler) (*HTTP, error) {
	allow := cfg.Allow
	if r := cfg.Reception; r != nil {
		r.Allow, allow, r.OnRefused = cfg.Allow, nil, cfg.OnRefused
	}
	ln, err := listen(listening{cfg.Addr, allow, cfg.Inherit, cfg.Log, cfg.OnRefused})
	if err != nil {
		return nil, err
	}
	h := &HTTP{ln: ln, reception: cfg.Reception, empty: make(chan struct{}), ended: make(chan struct{}), aborted: make(chan struct{})}
	h.server = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: cmp.Or(cfg.ReadHeaderTimeout, 10*time.Second),
		IdleTimeout:       cmp.Or(cfg.IdleTimeout, 2*time.Minute),
		MaxHeaderBytes:    cmp.Or(cfg.MaxHeaderBytes, 64<<10),
		// What strangers do wrong is not the operator's business.
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	WatchHeads(h.server, func(source net.Addr) { ln.report(source, RefusedHead) })
	return h, nil
}

// Addr is the address that is listened on.
func (h *HTTP) Addr() net.Addr { return h.ln.tcp.Addr() }

// Open is the number of open connections, idle ones with them.
func (h *HTTP) Open() int { return int(h.ln.open.Load()) }

// Run serves requests, once. When ctx ends or Shutdown is called, no more connections are accepted and idle ones are
// closed; Run returns nil once the last request has been answered and the last upgraded connection has ended. The
// context of the requests outlives ctx; Abort ends it.
func (h *HTTP) Run(ctx context.Context) error {
	h.running.Store(true)
	defer close(h.ended)
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	h.server.BaseContext = func(net.Listener) context.Context { return serving }

	var watch sync.WaitGroup
	returned := make(chan struct{})
	defer watch.Wait()
	defer close(returned)
	watch.Go(func() {
		select {
		case <-ctx.Done():
			h.leave(serving)
			_ = h.server.Shutdown(serving)
		case <-returned:
		}
	})
	watch.Go(func() {
		select {
		case <-h.aborted:
			cancel()
		case <-returned:
		}
	})
	err := h.server.Serve(acceptor{h})
	if h.leaving.Load() || errors.Is(err, http.ErrServerClosed) {
		err = nil
	} else {
		err = fmt.Errorf("serve http: %w", err)
		h.Abort()
	}
	h.conns.Wait()
	return err
}

// Shutdown stops accepting, closes idle connections and waits until Run has returned. When ctx ends before that, the
// rest is aborted and the error is the context's.
func (h *HTTP) Shutdown(ctx context.Context) error {
	h.leave(ctx)
	err := h.server.Shutdown(ctx)
	_ = h.ln.Close() // which the server does only if it was running
	if !h.running.Load() {
		return nil
	}
	if err == nil {
		select {
		case <-h.ended:
			return nil
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	h.Abort()
	<-h.ended
	return err
}

// lastHeads is how long those who were accepted last may take to send a request.
const lastHeads = time.Second

// leave stops accepting and waits a moment for the requests of connections that were accepted just now: http.Server drops
// those whose head it has not read when its Shutdown begins.
func (h *HTTP) leave(ctx context.Context) {
	h.leaving.Store(true)
	_ = h.ln.Close()
	h.server.SetKeepAlivesEnabled(false) // an answer is the last one of its connection; idle ones are closed
	h.ifEmpty()
	timer := time.NewTimer(lastHeads)
	defer timer.Stop()
	select {
	case <-h.empty:
	case <-timer.C:
	case <-h.aborted:
	case <-ctx.Done():
	}
}

func (h *HTTP) ifEmpty() {
	if h.leaving.Load() && h.ln.open.Load() == 0 {
		h.emptied.Do(func() { close(h.empty) })
	}
}

// Abort stops accepting, closes the connections of all requests and ends their contexts. Upgraded connections end with
// the context of their requests.
func (h *HTTP) Abort() {
	_ = h.server.Close() // before the contexts end: what is answered then must not look like an answer
	_ = h.ln.Close()
	h.abort.Do(func() { close(h.aborted) })
}

// acceptor is the listener as http.Server wants it.
type acceptor struct{ h *HTTP }

func (a acceptor) Accept() (net.Conn, error) {
	c, err := a.h.ln.accept()
	if err != nil {
		return nil, err
	}
	a.h.conns.Add(1) // Accept is called by Run only, so never beside its Wait
	open := &openConn{TCPConn: c, h: a.h}
	if a.h.reception != nil {
		return &receivedConn{openConn: open}, nil
	}
	return open, nil
}

func (a acceptor) Close() error   { return a.h.ln.Close() }
func (a acceptor) Addr() net.Addr { return a.h.Addr() }

// openConn counts as open until it is closed.
type openConn struct {
	*net.TCPConn
	head
	h     *HTTP
	close sync.Once
}

func (c *openConn) Close() error {
	err := c.TCPConn.Close()
	c.close.Do(func() {
		c.h.ln.release()
		c.h.ifEmpty()
		c.h.conns.Done()
	})
	return err
}
