// Package ws carries a session over WebSocket (RFC 6455), so that it passes what lets HTTPS pass.
//
// The connection is a byte stream: message boundaries mean nothing. There is no compression.
package ws

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Path is where servers take connections, unless the URL names another path.
const Path = "/connect"

// Protocol is the WebSocket subprotocol, which keeps strangers' WebSockets apart from ours.
const Protocol = "culvert.1"

// Dial is how a client reaches a server.
type Dial struct {
	URL    *url.URL    // wss or ws
	TLS    *tls.Config // for wss; must verify the server
	Header http.Header // sent with the upgrade: the credential
	// Proxy chooses an HTTP proxy, as in http.Transport; nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// Timeout bounds connect, TLS handshake and upgrade together.
	Timeout time.Duration
}

// Refusal is a server's answer other than an upgrade.
type Refusal struct {
	Status int
	Text   string // the server's own words: one line, cut
}

func (r *Refusal) Error() string {
	if r.Text == "" {
		return fmt.Sprintf("server answered %d %s", r.Status, http.StatusText(r.Status))
	}
	return fmt.Sprintf("server answered %d: %s", r.Status, r.Text)
}

// Connect makes a connection. An answer other than an upgrade is a *Refusal.
func (d Dial) Connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	transport := &http.Transport{
		Proxy:               d.Proxy,
		TLSClientConfig:     d.TLS,
		TLSHandshakeTimeout: d.Timeout,
		DialContext:         (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
		DisableKeepAlives:   true,
	}
	c, resp, err := websocket.Dial(ctx, d.URL.String(), &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: transport, CheckRedirect: noRedirect},
		HTTPHeader:   d.Header,
		Subprotocols: []string{Protocol},
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, refusal(resp)
		}
		return nil, err
	}
	if c.Subprotocol() != Protocol {
		c.CloseNow()
		return nil, errors.New("server speaks another protocol on its WebSocket: it is not culvert")
	}
	return stream(c, d.URL.Host), nil
}

// noRedirect keeps the credential from travelling to a place that its owner did not name.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func refusal(resp *http.Response) *Refusal {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // websocket.Dial keeps the first bytes
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return &Refusal{Status: resp.StatusCode, Text: line}
}

// Upgrade makes a connection of a client's request, or answers it with an error and reports that.
func Upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Protocol}})
	if err != nil {
		return nil, err
	}
	if c.Subprotocol() != Protocol {
		c.Close(websocket.StatusPolicyViolation, "want subprotocol "+Protocol)
		return nil, fmt.Errorf("websocket without subprotocol %s", Protocol)
	}
	return stream(c, r.RemoteAddr), nil
}

func stream(c *websocket.Conn, remote string) net.Conn {
	// Messages may be of any length: they are read piece by piece. The context ends nothing that Close does not end.
	return conn{websocket.NetConn(context.Background(), c, websocket.MessageBinary), c, addr(remote)}
}

// conn closes without the closing handshake: the session above has said its goodbye, and a dead peer never answers.
type conn struct {
	net.Conn
	ws     *websocket.Conn
	remote addr
}

func (c conn) Close() error {
	err := c.ws.CloseNow()
	_ = c.Conn.Close() // stops the deadlines' timers; the connection is closed already
	return err
}

func (c conn) RemoteAddr() net.Addr { return c.remote }

type addr string

func (addr) Network() string  { return "websocket" }
func (a addr) String() string { return string(a) }
