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
	"net/http"
	"net/url"
	"strings"

	"culvert/internal/auth"
	"culvert/internal/config"
	"culvert/internal/pki"
)

// question is what a command asks a server on its control port.
type question struct {
	method string // "" for GET
	path   string // escaped: "/status"
	query  url.Values
	body   any // sent as JSON; nil for none
	// may is what a token needs to be granted, as the flag of culvert token new.
	may string
	// refused is what the operator is told besides when the server finds a fault in what it was to do.
	refused string
}

// maxAnswer bounds what is read of an answer: the status of a million clients fits.
const maxAnswer = 256 << 20

// ask asks a server and gives its answer, which is JSON. The token is sent only to a server that TLS has verified.
func ask(ctx context.Context, cfg config.Control, q question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	roots, err := serverRoots(ctx, cfg)
	if err != nil {
		return nil, explainFailure(err, cfg)
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
	req, err := q.request(ctx, cfg)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the rest repeats the URL
		}
		return nil, explainFailure(err, cfg)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", cfg.URL.Host, err)
	}
	if resp.StatusCode == http.StatusBadRequest && cfg.URL.Scheme == "ws" && bytes.Contains(body, []byte("TLS")) {
		return nil, fmt.Errorf("%s speaks TLS: write wss:// in --url, and leave out --insecure-plaintext", cfg.URL.Host)
	}
	return body, checkAnswer(cfg.URL.Host, q, resp, body)
}

// request is the question as HTTP.
func (q question) request(ctx context.Context, cfg config.Control) (*http.Request, error) {
	var body bytes.Buffer
	if q.body != nil {
		if err := json.NewEncoder(&body).Encode(q.body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, q.method, questionURL(cfg.URL, q), &body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if q.method != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if !cfg.Token.Empty() {
		req.Header.Set("Authorization", "Bearer "+cfg.Token.Reveal())
	}
	return req, nil
}

// serverRoots are the authorities to trust; nil for the system's.
func serverRoots(ctx context.Context, cfg config.Control) (*x509.CertPool, error) {
	if cfg.URL.Scheme == "ws" {
		return nil, nil
	}
	token := cfg.Token.Reveal()
	return pki.Trust{Auto: cfg.AutoTLS, CAFile: cfg.TLSCA}.Roots(ctx, pki.Fetch{
		Host: cfg.URL.Host, Token: token, TokenID: auth.TokenID(token), Proxy: http.ProxyFromEnvironment,
	})
}

func explainFailure(err error, cfg config.Control) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer from %s within %s: is it the control port, and does a firewall let you through? (%w)",
			cfg.URL.Host, cfg.Timeout, err)
	}
	return pki.Explain(err, cfg.URL.Host)
}

// questionURL is the address of a question beside that of the clients: wss://host:8123/connect becomes https://host:8123/status.
func questionURL(u *url.URL, q question) string {
	scheme := "https"
	if u.Scheme == "ws" {
		scheme = "http"
	}
	path := strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/connect")
	s := (&url.URL{Scheme: scheme, Host: u.Host, Path: path}).String() + q.path
	if len(q.query) > 0 {
		s += "?" + q.query.Encode()
	}
	return s
}

func checkAnswer(host string, q question, resp *http.Response, body []byte) error {
	var failure struct {
		Error string `json:"error"`
	}
	said := json.Unmarshal(body, &failure) == nil && failure.Error != ""
	switch code := resp.StatusCode; {
	case code == http.StatusOK && json.Valid(body):
		return nil
	case code == http.StatusUnauthorized:
		return fmt.Errorf("the server at %s refuses this token: it is wrong, has expired or was revoked", host)
	case code == http.StatusForbidden && q.may == "admin":
		return fmt.Errorf("the server at %s lets this token do other things, but not administer: make one with --admin", host)
	case code == http.StatusForbidden:
		return fmt.Errorf("the server at %s lets this token do other things, but not read: make one with --read", host)
	case said && code == http.StatusUnprocessableEntity && q.refused != "":
		return fmt.Errorf("%s\n%s", failure.Error, q.refused)
	case said:
		return errors.New(failure.Error) // the server's words, which say all
	case code == http.StatusOK, code == http.StatusNotFound:
		return fmt.Errorf("%s answers, but it is not a culvert server: is it the control port (8123 by default)?", host)
	default:
		return fmt.Errorf("the server at %s answers %d %s", host, code, http.StatusText(code))
	}
}

// printIndented prints JSON for people who read it.
func printIndented(w io.Writer, body []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "  "); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(w)
	return err
}
