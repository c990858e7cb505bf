package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"culvert/internal/admin"
	"culvert/internal/auth"
	"culvert/internal/config"
	"culvert/internal/pki"
)

// status prints what a server is doing.
func (t tree) status() *cobra.Command {
	cfg := new(config.Status)
	return t.command(leaf{
		use: "status", short: "Status: what a server is, and which clients are connected to it",
		examples: []string{
			"culvert status --url wss://203.0.113.7:8123 --token-file token",
			"culvert status --url wss://tunnel.example.com --token-file token --auto-tls=false",
			"culvert status --url wss://203.0.113.7:8123 --token-file token --output json",
		},
		settings: config.Describe(cfg, ""), cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, _ *slog.Logger, _ []string) error {
			body, err := fetchStatus(ctx, *cfg)
			if err != nil {
				return err
			}
			if cfg.JSON() {
				return t.printStatusJSON(body)
			}
			return t.printStatus(body)
		},
	})
}

func (t tree) printStatusJSON(body []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "  "); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(t.deps.Stdout)
	return err
}

func (t tree) printStatus(body []byte) error {
	var status admin.Status
	if err := json.Unmarshal(body, &status); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	b := t.deps.Build
	fmt.Fprintf(t.deps.Stdout, "Querying server status. Version %s - %s\n", b.Version, b.Revision)
	return admin.Print(t.deps.Stdout, status, t.deps.Now())
}

// maxStatus bounds what is read of an answer: a million clients fit.
const maxStatus = 256 << 20

// fetchStatus asks a server for its status, as JSON. The token is sent only to a server that TLS has verified.
func fetchStatus(ctx context.Context, cfg config.Status) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	roots, err := statusRoots(ctx, cfg)
	if err != nil {
		return nil, explain(err, cfg)
	}
	transport := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	defer transport.CloseIdleConnections()
	hc := &http.Client{
		Transport: transport,
		// A redirect would take the token to another path or host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, statusURL(cfg.URL), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if !cfg.Token.Empty() {
		req.Header.Set("Authorization", "Bearer "+cfg.Token.Reveal())
	}
	resp, err := hc.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the rest repeats the URL
		}
		return nil, explain(err, cfg)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("read status of %s: %w", cfg.URL.Host, err)
	}
	return body, checkAnswer(cfg.URL.Host, resp, body)
}

// statusRoots are the authorities to trust; nil for the system's.
func statusRoots(ctx context.Context, cfg config.Status) (*x509.CertPool, error) {
	if cfg.URL.Scheme == "ws" {
		return nil, nil
	}
	token := cfg.Token.Reveal()
	return pki.Trust{Auto: cfg.AutoTLS, CAFile: cfg.TLSCA}.Roots(ctx, pki.Fetch{
		Host: cfg.URL.Host, Token: token, TokenID: auth.TokenID(token), Proxy: http.ProxyFromEnvironment,
	})
}

func explain(err error, cfg config.Status) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer from %s within %s: is it the control port, and does a firewall let you through? (%w)",
			cfg.URL.Host, cfg.Timeout, err)
	}
	return pki.Explain(err, cfg.URL.Host)
}

// statusURL is the address of the status beside that of the clients: wss://host:8123/connect becomes https://host:8123/status.
func statusURL(u *url.URL) string {
	scheme := "https"
	if u.Scheme == "ws" {
		scheme = "http"
	}
	path := strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/connect") + "/status"
	return (&url.URL{Scheme: scheme, Host: u.Host, Path: path}).String()
}

func checkAnswer(host string, resp *http.Response, body []byte) error {
	switch code := resp.StatusCode; {
	case code == http.StatusOK && json.Valid(body):
		return nil
	case code == http.StatusUnauthorized:
		return fmt.Errorf("the server at %s refuses this token: it is wrong, has expired or was revoked", host)
	case code == http.StatusForbidden:
		return fmt.Errorf("the server at %s lets this token do other things, but not read: make one with --read", host)
	case code == http.StatusOK, code == http.StatusNotFound:
		return fmt.Errorf("%s answers, but it is not a culvert server: is it the control port (8123 by default)?", host)
	default:
		return fmt.Errorf("the server at %s answers %d %s", host, code, http.StatusText(code))
	}
}
