package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"culvert/internal/auth"
	"culvert/internal/pki"
	carrier "culvert/internal/tunnel/tls"
	"culvert/internal/tunnel/ws"
)

// connectTimeout bounds one attempt: connect, TLS and the server's answer.
const connectTimeout = 5 * time.Second

// link makes verified connections to one server. Its methods are safe for concurrent use.
type link struct {
	cfg Config
	url *url.URL

	mu   sync.Mutex
	pool *x509.CertPool // what the server's certificate is verified with, once known
}

func newLink(cfg Config, u *url.URL) *link { return &link{cfg: cfg, url: u} }

// connect makes a connection that is ready for a mux, by the carrier that the URL names. The token travels only once the
// server is verified. Errors are in the operator's words.
func (l *link) connect(ctx context.Context) (net.Conn, error) {
	config, err := l.tls(ctx)
	if err != nil {
		return nil, pki.Explain(err, hostport(l.url))
	}
	conn, err := l.carrier(config).Connect(ctx)
	if err == nil {
		return conn, nil
	}
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) {
		l.forget(config.RootCAs) // there may be a new authority: let the server prove that, or read the file anew
	}
	return nil, l.explain(err)
}

// carrier is how the URL says that the server is reached; config is nil without TLS.
func (l *link) carrier(config *tls.Config) interface {
	Connect(context.Context) (net.Conn, error)
} {
	token := l.cfg.Token.Reveal()
	if l.url.Scheme == "tls" {
		return carrier.Dial{Addr: hostport(l.url), TLS: config, Token: token, Proxy: l.cfg.Proxy, Timeout: connectTimeout}
	}
	u := *l.url
	u.Host = hostport(l.url)
	d := ws.Dial{URL: &u, TLS: config, Header: make(http.Header), Proxy: l.cfg.Proxy, Timeout: connectTimeout}
	if token != "" {
		d.Header.Set("Authorization", "Bearer "+token)
	}
	return d
}

// tls is how the server is verified; nil for a URL without TLS. Several callers may ask the server for its authority at
// once, which does no harm.
func (l *link) tls(ctx context.Context) (*tls.Config, error) {
	if l.url.Scheme == "ws" {
		return nil, nil
	}
	l.mu.Lock()
	pool := l.pool
	l.mu.Unlock()
	if pool == nil {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		token := l.cfg.Token.Reveal()
		var err error
		pool, err = l.cfg.Trust.Roots(ctx, pki.Fetch{Host: hostport(l.url), Token: token, TokenID: auth.TokenID(token), Proxy: l.cfg.Proxy})
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		l.pool = pool
		l.mu.Unlock()
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}, nil
}

// forget has the next attempt ask again whom to trust, unless that has been learned meanwhile.
func (l *link) forget(pool *x509.CertPool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pool == pool {
		l.pool = nil
	}
}

// explain puts a failed attempt into the operator's words.
func (l *link) explain(err error) error {
	var answer *ws.Refusal
	var refusal *carrier.Refusal
	errors.As(err, &answer)
	errors.As(err, &refusal)
	switch {
	case unauthorized(err):
		return fmt.Errorf("the server at %s refused the token: %w", l.url.Host, err)
	case answer != nil && answer.Status == http.StatusNotFound:
		return fmt.Errorf("the server at %s knows no %s: is it a culvert control port, and the path right? %w", l.url.Host, l.url.Path, err)
	case answer != nil, refusal != nil:
		return err
	case errors.Is(err, carrier.ErrOtherProtocol):
		return fmt.Errorf("%s speaks TLS but not %s: is it a culvert control port (8123 by default)? behind a proxy that ends TLS use wss:// (%w)",
			hostport(l.url), carrier.Protocol, err)
	default:
		return pki.Explain(err, hostport(l.url))
	}
}

// unauthorized says whether the server has refused the token.
func unauthorized(err error) bool {
	var answer *ws.Refusal
	var refusal *carrier.Refusal
	return errors.As(err, &refusal) && refusal.Status == carrier.Refused || errors.As(err, &answer) && answer.Status == http.StatusUnauthorized
}

// hostport is the URL's address, with the port that it leaves out.
func hostport(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "ws" {
		return net.JoinHostPort(u.Hostname(), "80")
	}
	return net.JoinHostPort(u.Hostname(), "443")
}
