// Package tls carries a session over bare TLS, where nothing between client and server needs WebSocket.
//
// The client names the protocol in its TLS handshake (ALPN), and sends its token once it has verified the server. When
// the server has taken the token, the byte stream is the session's. A server that goes away closes the connection; the
// session says its own goodbye.
package tls

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"culvert/internal/forwardproxy"
)

// Protocol is the name in the handshake.
const Protocol = "culvert/1"

// Dial is how a client reaches a server.
type Dial struct {
	Addr  string      // host:port
	TLS   *tls.Config // must verify the server
	Token string      // "" for a server that asks for none
	// Proxy chooses a forward proxy for an https URL; nil means none.
	Proxy forwardproxy.Choose
	// Timeout bounds connect, TLS handshake and the server's answer together.
	Timeout time.Duration
}

// ErrOtherProtocol means that a server did the TLS handshake but does not know this protocol.
var ErrOtherProtocol = errors.New("server does not speak " + Protocol)

// Connect makes a connection, which outlives the context. A server that does not take the token gives a *Refusal.
func (d Dial) Connect(ctx context.Context) (net.Conn, error) {
	within, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	conn, err := d.connect(within)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && within.Err() != nil {
		return nil, fmt.Errorf("no connection within %s: %w", d.Timeout, context.DeadlineExceeded)
	}
	return conn, err
}

func (d Dial) connect(ctx context.Context) (_ net.Conn, err error) {
	host, _, err := net.SplitHostPort(d.Addr)
	if err != nil {
		return nil, err
	}
	below, err := forwardproxy.Dial(ctx, d.Proxy, "https", d.Addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = below.Close() })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = below.Close()
		}
	}()
	config := d.TLS.Clone()
	config.ServerName, config.NextProtos = cmp.Or(config.ServerName, host), []string{Protocol}
	config.MinVersion = tls.VersionTLS13
	conn := tls.Client(below, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, otherProtocol(err)
	}
	if conn.ConnectionState().NegotiatedProtocol != Protocol {
		return nil, ErrOtherProtocol
	}
	if err := show(conn, d.Token); err != nil {
		return nil, err
	}
	return newConn(conn), nil
}

// noApplicationProtocol is the alert of a server that knows none of the client's protocols (RFC 7301).
const noApplicationProtocol = tls.AlertError(120)

// otherProtocol tells a server of another protocol from a handshake that failed otherwise.
func otherProtocol(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == noApplicationProtocol.Error() {
		return fmt.Errorf("%w (%w)", ErrOtherProtocol, err)
	}
	return err
}
