// Package forwardproxy makes connections to servers through the proxies that networks prescribe to their clients: HTTP
// proxies, by CONNECT, and SOCKS 5 proxies.
//
// Every connection is corked at the bottom, below the TLS of the proxy and of the server. The names of servers are looked
// up by the proxy. No error holds the password of a proxy.
package forwardproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"

	"culvert/internal/cork"
)

// Choose says which proxy a request goes through, as in http.Transport. nil, as a function or a URL, means none.
type Choose = func(*http.Request) (*url.URL, error)

// Error is why a proxy gave no connection.
type Error struct {
	Proxy  string // host:port, "" if its URL could not be read
	Status int    // what the proxy answered, 0 if it did not
	Named  bool   // a name and a password were shown to it
	Err    error
}

func (e *Error) Error() string { return "proxy " + e.Proxy + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// ErrUnreadable is within the error for a proxy whose URL cannot be read. It does not say the URL, which may hold a
// password.
var ErrUnreadable = errors.New("its URL cannot be read")

// Dial connects to addr, a host:port, through the proxy that is chosen for a URL of this scheme. The error is an *Error
// if the proxy is to blame.
func Dial(ctx context.Context, choose Choose, scheme, addr string) (net.Conn, error) {
	via, err := chosen(choose, scheme, addr)
	if err != nil {
		return nil, err
	}
	if via == nil {
		return dial(ctx, addr)
	}
	_, named := via.User.Password()
	failed := &Error{Proxy: proxyAddr(via), Named: named}
	conn, err := dial(ctx, failed.Proxy)
	if err == nil {
		conn, err = through(ctx, conn, via, addr)
	}
	if err != nil {
		var answer *answered
		if errors.As(err, &answer) {
			failed.Status = answer.status
		}
		failed.Err = err
		return nil, failed
	}
	return conn, nil
}

func chosen(choose Choose, scheme, addr string) (*url.URL, error) {
	if choose == nil {
		return nil, nil
	}
	via, err := choose(&http.Request{URL: &url.URL{Scheme: scheme, Host: addr}})
	if err != nil {
		return nil, &Error{Err: ErrUnreadable}
	}
	return via, nil
}

// dial makes a corked connection.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	cork.Tune(conn)
	return cork.New(conn), nil
}

func proxyAddr(via *url.URL) string {
	port := via.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[via.Scheme]
	}
	return net.JoinHostPort(via.Hostname(), port)
}

// through asks a proxy for the way to addr, on a connection to the proxy that it takes over.
func through(ctx context.Context, below net.Conn, via *url.URL, addr string) (conn net.Conn, err error) {
	stop := context.AfterFunc(ctx, func() { _ = below.Close() })
	defer func() {
		if !stop() && err == nil { // it has been closed
			conn, err = nil, context.Cause(ctx)
		}
		if err != nil {
			_ = below.Close()
			if ctx.Err() != nil { // what a connection says when it is cut off tells less
				err = ctx.Err()
			}
		}
	}()
	switch via.Scheme {
	case "http":
		return below, connect(below, via, addr)
	case "https":
		secure := tls.Client(below, &tls.Config{
			ServerName: via.Hostname(), NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12,
			DynamicRecordSizingDisabled: true,
		})
		return secure, connect(secure, via, addr)
	case "socks5", "socks5h":
		return below, socks(ctx, below, via, addr)
	default:
		return nil, fmt.Errorf("the scheme %q cannot be used", via.Scheme)
	}
}

// socks does the exchange of SOCKS 5 on a connection.
func socks(ctx context.Context, conn net.Conn, via *url.URL, addr string) error {
	var auth *proxy.Auth
	if via.User != nil {
		password, _ := via.User.Password()
		auth = &proxy.Auth{User: via.User.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", via.Host, auth, made{conn})
	if err != nil {
		return err
	}
	_, err = d.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "socks connect" {
		err = op.Err // the rest repeats the addresses
	}
	return err
}

// made dials a connection that is there already.
type made struct{ conn net.Conn }

func (m made) Dial(string, string) (net.Conn, error) { return m.conn, nil }

func (m made) DialContext(context.Context, string, string) (net.Conn, error) { return m.conn, nil }
