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
	"time"

	"culvert/internal/auth"
	"culvert/internal/pki"
	"culvert/internal/tunnel/ws"
)

// connectTimeout bounds one attempt: connect, TLS and upgrade.
const connectTimeout = 5 * time.Second

// link makes verified connections to one server. It is used by one goroutine.
type link struct {
	cfg  Config
	url  *url.URL
	pool *x509.CertPool // what the server's certificate is verified with, once known
}

func newLink(cfg Config, u *url.URL) *link { return &link{cfg: cfg, url: u} }

// connect makes a connection. The token travels only once the server is verified. Errors are in the operator's words.
func (l *link) connect(ctx context.Context) (net.Conn, error) {
	d := ws.Dial{URL: l.url, Header: make(http.Header), Proxy: l.cfg.Proxy, Timeout: connectTimeout}
	if l.url.Scheme == "wss" {
		config, err := l.tls(ctx)
		if err != nil {
			return nil, pki.Explain(err, hostport(l.url))
		}
		d.TLS = config
	}
	if !l.cfg.Token.Empty() {
		d.Header.Set("Authorization", "Bearer "+l.cfg.Token.Reveal())
	}
	conn, err := d.Connect(ctx)
	if err == nil {
		return conn, nil
	}
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) {
		l.pool = nil // there may be a new authority: let the server prove that, or read the file anew
	}
	return nil, l.explain(err)
}

func (l *link) tls(ctx context.Context) (*tls.Config, error) {
	if l.pool == nil {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		token := l.cfg.Token.Reveal()
		pool, err := l.cfg.Trust.Roots(ctx, pki.Fetch{Host: hostport(l.url), Token: token, TokenID: auth.TokenID(token), Proxy: l.cfg.Proxy})
		if err != nil {
			return nil, err
		}
		l.pool = pool
	}
	return &tls.Config{RootCAs: l.pool, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}, nil
}

// explain puts a failed upgrade into the operator's words.
func (l *link) explain(err error) error {
	var refusal *ws.Refusal
	if !errors.As(err, &refusal) {
		return pki.Explain(err, hostport(l.url))
	}
	switch refusal.Status {
	case http.StatusUnauthorized:
		return fmt.Errorf("the server at %s refused the token: %w", l.url.Host, err)
	case http.StatusNotFound:
		return fmt.Errorf("the server at %s knows no %s: is it a culvert control port, and the path right? %w", l.url.Host, l.url.Path, err)
	default:
		return err
	}
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
