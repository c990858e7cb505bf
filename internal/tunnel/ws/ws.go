// Package ws carries a session over WebSocket (RFC 6455), so that it passes what lets HTTPS pass.
//
// The connection is a byte stream in binary messages whose boundaries mean nothing. There is no compression. A close
// frame ends it; it is closed without one, because the session above says its own goodbye and a dead peer never answers.
package ws

import (
	"context"
	"crypto/rand"
	"crypto/sha1" // RFC 6455 says so, and nothing rests on it
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"
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

// Connect makes a connection, which outlives the context. An answer other than an upgrade is a *Refusal.
func (d Dial) Connect(ctx context.Context) (net.Conn, error) {
	// The transport ends the connection with the request's context, so that one must not end with this call.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	timer := time.AfterFunc(d.Timeout, cancel)
	stop := context.AfterFunc(ctx, cancel)
	c, err := d.upgrade(lasting)
	if inTime := timer.Stop(); err == nil && stop() && inTime {
		return c, nil
	}
	cancel()
	if c != nil {
		_ = c.Close()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if lasting.Err() != nil && errors.Is(err, context.Canceled) {
		err = fmt.Errorf("no connection within %s: %w", d.Timeout, context.DeadlineExceeded)
	}
	return nil, err
}

func (d Dial) upgrade(ctx context.Context) (net.Conn, error) {
	var below net.Conn
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { below = i.Conn }})
	req, key, err := d.request(ctx)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:             d.Proxy,
		TLSClientConfig:   d.TLS,
		DialContext:       (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
		DisableKeepAlives: true,
	}
	resp, err := transport.RoundTrip(req) // which follows no redirect: the credential goes to its owner's server alone
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	body, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !hasToken(resp.Header, "Upgrade", "websocket") || resp.Header.Get("Sec-Websocket-Accept") != accept(key) {
		_ = resp.Body.Close()
		return nil, errors.New("server upgraded to something that is no WebSocket")
	}
	if resp.Header.Get("Sec-Websocket-Protocol") != Protocol {
		_ = resp.Body.Close()
		return nil, errors.New("server speaks another protocol on its WebSocket: it is not culvert")
	}
	return &conn{Conn: upgraded{below, body}, in: body, client: true}, nil
}

func (d Dial) request(ctx context.Context) (req *http.Request, key string, err error) {
	u := *d.URL
	u.Scheme = map[string]string{"wss": "https", "ws": "http"}[u.Scheme]
	req, err = http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", err
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key = base64.StdEncoding.EncodeToString(nonce[:])
	for name, values := range d.Header {
		req.Header[name] = values
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-Websocket-Version", "13")
	req.Header.Set("Sec-Websocket-Key", key)
	req.Header.Set("Sec-Websocket-Protocol", Protocol)
	return req, key, nil
}

// upgraded is a client's connection below its frames. Closing the body is what releases the transport.
type upgraded struct {
	net.Conn
	body io.Closer
}

func (u upgraded) Close() error { return u.body.Close() }

func refusal(resp *http.Response) *Refusal {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // as much as there is
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return &Refusal{Status: resp.StatusCode, Text: line}
}

// Upgrade makes a connection of a client's request, or answers it with an error and reports that.
func Upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	key, err := checkRequest(r)
	if err != nil {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "close")
		w.Header().Set("Sec-Websocket-Version", "13")
		http.Error(w, err.Error(), http.StatusUpgradeRequired)
		return nil, err
	}
	below, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be upgraded", http.StatusInternalServerError)
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	c := &conn{Conn: below, in: below}
	if n := buffered.Reader.Buffered(); n > 0 {
		early, _ := buffered.Reader.Peek(n) // what is buffered is there
		c.in = io.MultiReader(strings.NewReader(string(early)), below)
	}
	_, err = io.WriteString(below, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "+accept(key)+"\r\nSec-WebSocket-Protocol: "+Protocol+"\r\n\r\n")
	if err != nil {
		_ = below.Close()
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	return c, nil
}

// checkRequest says what keeps a request from being an upgrade to ours, or gives its key.
func checkRequest(r *http.Request) (key string, err error) {
	key = r.Header.Get("Sec-Websocket-Key")
	raw, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.Method != http.MethodGet, !r.ProtoAtLeast(1, 1),
		!hasToken(r.Header, "Connection", "upgrade"), !hasToken(r.Header, "Upgrade", "websocket"):
		return "", errors.New("clients connect here, by WebSocket over HTTP/1.1")
	case r.Header.Get("Sec-Websocket-Version") != "13" || err != nil || len(raw) != 16:
		return "", errors.New("want WebSocket version 13 with a key")
	case !hasToken(r.Header, "Sec-Websocket-Protocol", Protocol):
		return "", errors.New("want WebSocket subprotocol " + Protocol)
	}
	return key, nil
}

// hasToken says whether a header's comma list has a token, in any case.
func hasToken(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// accept is the server's answer to a key (RFC 6455, section 4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
