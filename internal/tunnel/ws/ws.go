// Package ws carries a session over WebSocket (RFC 6455), so that it passes what lets HTTPS pass.
//
// The connection is a byte stream in binary messages whose boundaries mean nothing. There is no compression. A close
// frame ends it; it is closed without one, because the session above says its own goodbye and a dead peer never answers.
package ws

import (
	"bufio"
	"bytes"
	"cmp"
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
	"net/url"
	"strings"
	"time"

	"culvert/internal/forwardproxy"
)

// Path is where servers take connections, unless the URL names another path.
const Path = "/connect"

// Protocol is the WebSocket subprotocol, which keeps strangers' WebSockets apart from ours.
const Protocol = "culvert.1"

// Dial is how a client reaches a server.
type Dial struct {
	URL    *url.URL    // wss or ws, with a port
	TLS    *tls.Config // for wss; must verify the server
	Header http.Header // sent with the upgrade: the credential
	// Proxy chooses a forward proxy for an https or http URL; nil means none.
	Proxy forwardproxy.Choose
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
	req, key, err := d.request(ctx)
	if err != nil {
		return nil, err
	}
	below, err := forwardproxy.Dial(ctx, d.Proxy, req.URL.Scheme, d.URL.Host)
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
	conn := below
	if d.URL.Scheme == "wss" {
		config := d.TLS.Clone()
		config.ServerName, config.NextProtos = cmp.Or(config.ServerName, d.URL.Hostname()), []string{"http/1.1"}
		secure := tls.Client(below, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	return upgrade(conn, req, key)
}

// maxAnswer bounds the head of an answer.
const maxAnswer = 64 << 10

// upgrade asks for a WebSocket. A redirect is not followed: the credential goes to its owner's server alone.
func upgrade(below net.Conn, req *http.Request, key string) (net.Conn, error) {
	if err := req.Write(below); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: below, N: maxAnswer}
	buffered := bufio.NewReader(limited)
	resp, err := http.ReadResponse(buffered, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, refusal(resp)
	}
	if !hasToken(resp.Header, "Upgrade", "websocket") || resp.Header.Get("Sec-Websocket-Accept") != accept(key) {
		return nil, errors.New("server upgraded to something that is no WebSocket")
	}
	if resp.Header.Get("Sec-Websocket-Protocol") != Protocol {
		return nil, errors.New("server speaks another protocol on its WebSocket: it is not culvert")
	}
	return newConn(below, early(buffered), true), nil
}

// early are the bytes that a reader holds back, nil for none.
func early(r *bufio.Reader) []byte {
	held, _ := r.Peek(r.Buffered()) // what is buffered is there
	return bytes.Clone(held)
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
	req.Header.Set("User-Agent", "culvert")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-Websocket-Version", "13")
	req.Header.Set("Sec-Websocket-Key", key)
	req.Header.Set("Sec-Websocket-Protocol", Protocol)
	return req, key, nil
}

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
	c := newConn(below, early(buffered.Reader), false)
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
