package pki

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"culvert/internal/forwardproxy"
)

const (
	// maxAnswer bounds what is read of a stranger's answer, headers included. A real one has about 1 KiB.
	maxAnswer = 64 << 10
	// fetchTimeout bounds the whole exchange, for callers whose context has no end.
	fetchTimeout = 15 * time.Second
)

// Fetch says from whom to fetch the CA and with which token to check the answer. It prints without the token.
type Fetch struct {
	Host    string // host:port of the server's control plane
	Token   string `json:"-"` // checks the proof; it is not sent, nor is anything that it could be told from
	TokenID string // says which token the server should prove to know; "" for the shared one
	// Proxy chooses a forward proxy for the server; nil means none.
	Proxy forwardproxy.Choose `json:"-"`
	// Dial makes the connection instead; nil means through the proxy, if one is chosen.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) `json:"-"`
}

// Format keeps the token out of everything that fmt prints.
func (f Fetch) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "fetch from "+f.Host) }

// FetchCA asks a server for its CA and returns it as the one root to trust, once the server has proved that it knows
// the token. It reads at most 64 KiB and takes at most 15 s.
//
// Errors are ErrShortToken, ErrProof, an *AnswerError if it is no culvert server with auto-TLS that answers, or what
// the network and TLS give; Explain puts each into the operator's words.
func FetchCA(ctx context.Context, f Fetch) (*x509.CertPool, error) {
	ca, err := f.fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetch the CA of %s: %w", f.Host, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool, nil
}

func (f Fetch) fetch(ctx context.Context) (*x509.Certificate, error) {
	if len(f.Token) < MinToken {
		return nil, ErrShortToken
	}
	var n nonce
	_, _ = rand.Read(n[:]) // never fails

	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	data, err := f.ask(ctx, n)
	if err != nil {
		if ctx.Err() != nil { // what a connection says when it is cut off tells less
			return nil, ctx.Err()
		}
		return nil, err
	}
	der, proof, err := parseAnswer(data)
	if err != nil {
		return nil, &AnswerError{Status: http.StatusOK, Err: err}
	}
	want, err := prove(sha256.Sum256([]byte(f.Token)), n, der)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(proof, want) {
		return nil, ErrProof
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &AnswerError{Status: http.StatusOK, Err: err}
	}
	if !ca.IsCA || !ca.BasicConstraintsValid {
		return nil, &AnswerError{Status: http.StatusOK, Err: errors.New("the certificate is not that of a CA")}
	}
	return ca, nil
}

// ask makes the one request and returns the body of a good answer.
func (f Fetch) ask(ctx context.Context, n nonce) ([]byte, error) {
	host, _, err := net.SplitHostPort(f.Host)
	if err != nil {
		return nil, fmt.Errorf("want host:port: %w", err)
	}
	raw, err := f.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	// A read that waits for a silent server ends with the context.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()

	conn := tls.Client(raw, &tls.Config{
		ServerName: host,
		NextProtos: []string{"http/1.1"},
		// There is nothing to verify with yet. Whoever this is, it is not told any secret, and what it says is believed
		// for the proof alone.
		InsecureSkipVerify: true, //nolint:gosec // the proof verifies instead
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	query := url.Values{"nonce": {hex.EncodeToString(n[:])}, "id": {f.TokenID}}
	req := &http.Request{
		Method: http.MethodGet,
		URL:    &url.URL{Scheme: "https", Host: f.Host, Path: CAPath, RawQuery: query.Encode()},
		Header: http.Header{"User-Agent": {"culvert"}, "Accept": {"application/json"}},
		Close:  true,
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return readAnswer(conn, req)
}

func (f Fetch) connect(ctx context.Context) (net.Conn, error) {
	if f.Dial != nil {
		return f.Dial(ctx, "tcp", f.Host)
	}
	return forwardproxy.Dial(ctx, f.Proxy, "https", f.Host)
}

// readAnswer reads the response to req, a stranger's bytes. What is not a good answer is an *AnswerError, unless it is
// the connection that failed.
func readAnswer(conn io.Reader, req *http.Request) ([]byte, error) {
	limited := &io.LimitedReader{R: conn, N: maxAnswer}
	resp, err := http.ReadResponse(bufio.NewReader(limited), req)
	if err != nil {
		return nil, answerError(limited, 0, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &AnswerError{Status: resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil || limited.N <= 0 {
		return nil, answerError(limited, resp.StatusCode, err)
	}
	return body, nil
}

// answerError tells a bad answer from a connection that failed.
func answerError(limited *io.LimitedReader, status int, err error) error {
	if limited.N <= 0 {
		return &AnswerError{Status: status, Err: fmt.Errorf("it has more than %d KiB", maxAnswer>>10)}
	}
	var netErr net.Error
	if errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return &AnswerError{Status: status, Err: err}
}
