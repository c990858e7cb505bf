package entrypoint

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
)

// TLSConfig is what a TLS listener needs.
type TLSConfig struct {
	TLS *tls.Config
	Log *slog.Logger
	// OnRefused, if set, is called for each connection whose handshake failed, with RefusedHandshake.
	OnRefused func(reason string)
}

// RefusedHandshake is the reason of a connection that did not get through the TLS handshake.
const RefusedHandshake = "handshake"

// TLS is a listener that gives connections whose TLS handshake is done. Handshakes go on beside each other, each in a
// goroutine that ends with it: whoever serves the connection then does so on a small stack, and a stranger who stalls
// in the handshake costs no more than that. It sets no deadline of its own.
type TLS struct {
	net.Listener
	cfg TLSConfig

	start  sync.Once
	given  chan accepted
	closed chan struct{}
	wait   sync.WaitGroup

	mu      sync.Mutex
	pending map[net.Conn]struct{} // nil once closed
}

type accepted struct {
	conn net.Conn
	err  error
}

// NewTLS makes a TLS listener of ln, which it owns.
func NewTLS(ln net.Listener, cfg TLSConfig) *TLS {
	return &TLS{
		Listener: ln, cfg: cfg,
		given: make(chan accepted), closed: make(chan struct{}), pending: make(map[net.Conn]struct{}),
	}
}

// Accept gives the next connection, a *tls.Conn. Its errors are those of the listener.
func (l *TLS) Accept() (net.Conn, error) {
	l.start.Do(func() { l.wait.Go(l.accept) })
	select {
	case a := <-l.given:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *TLS) accept() {
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			l.handshake(c)
			continue
		}
		// An error is told once for each Accept, which is how the caller slows this down.
		if !l.give(accepted{err: err}) || !passing(err) {
			return
		}
	}
}

func (l *TLS) handshake(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		_ = c.Close()
		return
	}
	l.pending[c] = struct{}{}
	l.wait.Go(func() {
		tc := tls.Server(c, l.cfg.TLS)
		err := tc.Handshake()
		l.mu.Lock()
		delete(l.pending, c)
		l.mu.Unlock()
		if err != nil {
			l.refuse(c, err)
		} else if !l.give(accepted{conn: tc}) {
			_ = tc.Close()
		}
	})
}

func (l *TLS) give(a accepted) bool {
	select {
	case l.given <- a:
		return true
	case <-l.closed:
		return false
	}
}

func (l *TLS) refuse(c net.Conn, err error) {
	defer c.Close()
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && startsHTTP(record.RecordHeader) {
		_, _ = io.WriteString(c, plainAnswer) // whoever asked wrongly may as well read why
	}
	l.cfg.Log.Debug("no TLS", "source", c.RemoteAddr(), "err", err)
	if l.cfg.OnRefused != nil {
		l.cfg.OnRefused(RefusedHandshake)
	}
}

const plainAnswer = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
	"This port speaks TLS: use https:// or wss://\n"

// startsHTTP says whether the first bytes that came in place of a TLS record are those of an HTTP request.
func startsHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	default:
		return false
	}
}

// Close stops accepting, ends the handshakes that are under way and waits for them.
func (l *TLS) Close() error {
	l.mu.Lock()
	if l.pending == nil {
		l.mu.Unlock()
		return nil
	}
	for c := range l.pending {
		_ = c.Close()
	}
	l.pending = nil
	close(l.closed)
	l.mu.Unlock()
	err := l.Listener.Close()
	l.wait.Wait()
	return err
}
