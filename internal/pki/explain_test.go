package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"culvert/internal/forwardproxy"
)

// Each way in which reaching a server goes wrong, on real listeners, has words of its own.
func TestExplain(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	addr := serveAuthority(t, a)
	trusted := x509.NewCertPool()
	trusted.AddCert(a.CA())

	fetch := func(host, token string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := FetchCA(ctx, Fetch{Host: host, Token: token, TokenID: testID})
			return err
		}
	}
	verify := func(host, name string, pool *x509.CertPool) func(context.Context) error {
		return func(ctx context.Context) error { return connect(ctx, host, name, testToken, pool) }
	}
	plain := serveHTTP(t, nil, http.NotFoundHandler())
	nginx := serveHTTP(t, &tls.Config{GetCertificate: a.GetCertificate}, http.NotFoundHandler())
	gateway := serveHTTP(t, &tls.Config{GetCertificate: a.GetCertificate}, http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	imaps := serveConns(t, func(c net.Conn) {
		defer c.Close()
		_, _ = io.WriteString(tls.Server(c, &tls.Config{GetCertificate: a.GetCertificate}), "* OK IMAP4rev1 ready\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	ssh := serveConns(t, func(c net.Conn) {
		defer c.Close()
		_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	closes := serveConns(t, func(c net.Conn) { c.Close() })
	resets := serveConns(t, func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	})
	alpn := serveHTTP(t, &tls.Config{GetCertificate: a.GetCertificate, NextProtos: []string{"imap"}}, http.NotFoundHandler())
	silent := serveConns(t, func(c net.Conn) {
		defer c.Close()
		_, _ = io.Copy(io.Discard, c)
	})
	otherCA := x509.NewCertPool()
	otherCA.AddCert(openAuthority(t, Config{SANs: []string{"127.0.0.1"}}).CA())
	expired, expiredPool := serveAt(t, -2*leafLife)
	future, futurePool := serveAt(t, 2*day)

	for name, tt := range map[string]struct {
		at   string
		do   func(context.Context) error
		want []string
	}{
		"wrong token":            {addr, fetch(addr, testToken+"x"), []string{addr, "could not prove that it knows this token", "the token is wrong, or someone is in between"}},
		"short token":            {addr, fetch(addr, "secret"), []string{"at least 16 characters", "culvert token new"}},
		"plain HTTP":             {plain, fetch(plain, testToken), []string{plain, "plain HTTP", "data port", "8123", "ws://"}},
		"plain HTTP, verifying":  {plain, verify(plain, "127.0.0.1", trusted), []string{plain, "plain HTTP", "data port"}},
		"not TLS":                {ssh, fetch(ssh, testToken), []string{ssh, "does not speak TLS", "8123"}},
		"TLS but not culvert":    {nginx, fetch(nginx, testToken), []string{nginx, "has no CA to give", "8123", "--auto-tls=false"}},
		"TLS and a bad gateway":  {gateway, fetch(gateway, testToken), []string{gateway, "does not answer as culvert", "502"}},
		"TLS but not HTTP":       {imaps, fetch(imaps, testToken), []string{imaps, "does not answer as culvert"}},
		"TLS that refuses":       {alpn, fetch(alpn, testToken), []string{alpn, "refused the handshake"}},
		"refused":                {closedPort, fetch(closedPort, testToken), []string{"refused the connection", "is the server running", "8123"}},
		"closes at once":         {closes, fetch(closes, testToken), []string{closes, "closed the connection", "allowed"}},
		"resets at once":         {resets, fetch(resets, testToken), []string{resets, "closed the connection", "allowed"}},
		"silent":                 {silent, impatient(fetch(silent, testToken)), []string{silent, "did not answer in time", "firewall"}},
		"wrong CA":               {addr, verify(addr, "127.0.0.1", otherCA), []string{addr, "does not come from a CA", "someone is in between"}},
		"no CA":                  {addr, verify(addr, "127.0.0.1", x509.NewCertPool()), []string{addr, "does not come from a CA", "--tls-ca FILE"}},
		"another name":           {addr, verify(addr, "tunnel.example.com", trusted), []string{addr, "not valid for tunnel.example.com", "127.0.0.1", "--auto-tls-san tunnel.example.com"}},
		"another address":        {addr, verify(addr, "10.9.8.7", trusted), []string{addr, "not valid for 10.9.8.7", "--auto-tls-san 10.9.8.7"}},
		"expired":                {expired, verify(expired, "127.0.0.1", expiredPool), []string{expired, "expired on", "renew it on the server"}},
		"not valid yet":          {future, verify(future, "127.0.0.1", futurePool), []string{future, "valid only from", "is the clock here right?"}},
		"host without port":      {"tunnel", fetch("tunnel", testToken), []string{"tunnel", "host:port"}},
		"no such host":           {"none.invalid:1", lookup(&net.DNSError{Name: "none.invalid", IsNotFound: true}), []string{"no such host: none.invalid"}},
		"no name server":         {"h.example:1", lookup(&net.DNSError{Name: "h.example", IsTimeout: true}), []string{"address of h.example", "network up"}},
		"no route":               {"10.0.0.1:1", lookup(&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}), []string{"no route to 10.0.0.1:1"}},
		"no proxy":               {"h:1", lookup(&net.OpError{Op: "proxyconnect", Err: syscall.ECONNREFUSED}), []string{"HTTP proxy", "HTTPS_PROXY", "h:1"}},
		"proxy's password":       {"h:1", lookup(&forwardproxy.Error{Proxy: "p:3128", Status: 401, Named: true, Err: errors.New("401 Unauthorized")}), []string{"p:3128", "does not take the name and password"}},
		"proxy's rules":          {"h:1", lookup(&forwardproxy.Error{Proxy: "p:3128", Status: 403, Err: errors.New("403 Forbidden")}), []string{"p:3128", "does not let connections to h:1 through"}},
		"proxy's URL":            {"h:1", lookup(&forwardproxy.Error{Err: forwardproxy.ErrUnreadable}), []string{"HTTPS_PROXY", "h:1"}},
		"something else":         {"h:1", lookup(errors.New("the cat ate it")), []string{"connect to h:1: fetch the CA of h:1: the cat ate it"}},
		"what only http can say": {"h:1", lookup(http.ErrSchemeMismatch), []string{"h:1 speaks plain HTTP"}},
	} {
		t.Run(name, func(t *testing.T) {
			cause := tt.do(t.Context())
			err := Explain(cause, tt.at)
			wantWords(t, err, tt.want...)
			if !errors.Is(err, cause) {
				t.Errorf("%v does not wrap its cause", err)
			}
			t.Log(err)
		})
	}
}

// lookup is a fetch whose dial fails in a way that no listener of this machine can bring about.
func lookup(err error) func(context.Context) error {
	return func(ctx context.Context) error {
		dial := func(context.Context, string, string) (net.Conn, error) { return nil, err }
		_, err := FetchCA(ctx, Fetch{Host: "h:1", Token: testToken, Dial: dial})
		return err
	}
}

func impatient(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		return do(ctx)
	}
}

// closedPort is an address that nothing listens on, and whose port the kernel gives to nobody.
const closedPort = "127.0.0.1:1"

// serveAt runs a server whose certificate was made at another time, by a CA that is valid now.
func serveAt(t *testing.T, shift time.Duration) (string, *x509.CertPool) {
	t.Helper()
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	leaf, err := issueLeaf(a.ca, a.sans, time.Now().Add(shift))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.CA())
	return serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{*leaf}}, http.NotFoundHandler()), pool
}

func TestExplainLeavesAlone(t *testing.T) {
	if err := Explain(nil, "h:1"); err != nil {
		t.Errorf("got %v for no error", err)
	}
	canceled := fmt.Errorf("dial: %w", context.Canceled)
	if err := Explain(canceled, "h:1"); err != canceled {
		t.Errorf("got %v, want it as it was: the caller has canceled it", err)
	}
}

func TestExplainWithoutACertificateAtHand(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"expired": {x509.CertificateInvalidError{Reason: x509.Expired}, "has expired"},
		"invalid": {x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}, "is not valid"},
	} {
		t.Run(name, func(t *testing.T) { wantWords(t, Explain(wordless{tt.err}, "h:1"), tt.want) })
	}
}

// wordless wraps an error whose own text needs the certificate.
type wordless struct{ error }

func (wordless) Error() string   { return "bad certificate" }
func (w wordless) Unwrap() error { return w.error }

func TestExplainDoesNotDrownInNames(t *testing.T) {
	cert := &x509.Certificate{}
	for i := range 500 {
		cert.DNSNames = append(cert.DNSNames, fmt.Sprintf("host-%03d.example\x1b[2J", i))
	}
	text := Explain(wordless{x509.HostnameError{Certificate: cert, Host: "h"}}, "h:1").Error()
	if len(text) > 500 {
		t.Errorf("%d characters: %s", len(text), text)
	}
	wantWords(t, errors.New(text), `host-000.example\x1b`, "…")
}
