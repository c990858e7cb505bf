package pki

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// mitm is someone between client and server: he ends the client's TLS with a certificate of his own, opens TLS to the
// server, passes on what he likes and keeps all that he reads.
type mitm struct {
	own     *Authority
	server  string
	rewrite func(answer []byte) []byte // nil passes the server's answers on

	mu   sync.Mutex
	seen bytes.Buffer // what the client sent, decrypted and as it was on the wire
}

// tap copies what is read from a connection.
type tap struct {
	net.Conn
	m *mitm
}

func (c tap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.seen.Write(p[:n])
	return n, err
}

func (m *mitm) handle(raw net.Conn) {
	defer raw.Close()
	client := tap{tls.Server(tap{raw, m}, &tls.Config{GetCertificate: m.own.GetCertificate}), m}
	server, err := tls.Dial("tcp", m.server, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.CloseWrite()
	}()
	answer, _ := io.ReadAll(server)
	if m.rewrite != nil {
		answer = m.rewrite(answer)
	}
	_, _ = client.Write(answer)
}

func (m *mitm) saw() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.seen.Bytes())
}

func TestC25ManInTheMiddleIsRefusedAndNeverSeesTheToken(t *testing.T) {
	server := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	addr := serveAuthority(t, server)
	evil := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	replaceCA := func(answer []byte) []byte {
		_, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
		body = bytes.Replace(body, jsonPEM(t, server.CA()), jsonPEM(t, evil.CA()), 1)
		return append([]byte("HTTP/1.1 200 OK\r\n\r\n"), body...)
	}

	for name, tt := range map[string]struct {
		rewrite   func([]byte) []byte
		bootstrap bool // whether the bootstrap itself succeeds: he passed the true answer on
	}{
		"passes everything on":    {nil, true},
		"puts his own CA in":      {replaceCA, false},
		"answers with an empty":   {func([]byte) []byte { return []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, false},
		"answers nothing at all":  {func([]byte) []byte { return nil }, false},
		"answers with a redirect": {func([]byte) []byte { return []byte("HTTP/1.1 302 Found\r\nLocation: /?t\r\nContent-Length: 0\r\n\r\n") }, false},
		"asks for a password": {func([]byte) []byte {
			return []byte("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mitm{own: evil, server: addr, rewrite: tt.rewrite}
			middle := serveConns(t, m.handle)

			pool, err := FetchCA(t.Context(), Fetch{Host: middle, Token: testToken, TokenID: testID})
			if tt.bootstrap != (err == nil) {
				t.Fatalf("bootstrap: %v", err)
			}
			if name == "puts his own CA in" {
				wantWords(t, Explain(err, middle), "could not prove that it knows this token")
			}
			if err == nil {
				err = connect(t.Context(), middle, "127.0.0.1", testToken, pool)
				var unknown x509.UnknownAuthorityError
				if !errors.As(err, &unknown) {
					t.Fatalf("got %v, want a refusal of his certificate", err)
				}
				wantWords(t, Explain(err, middle), "someone is in between")
			}
			checkSaw(t, m.saw())
		})
	}

	t.Run("there is someone to see: the same exchange without verification shows the token", func(t *testing.T) {
		m := &mitm{own: evil, server: addr}
		middle := serveConns(t, m.handle)
		fooled := x509.NewCertPool()
		fooled.AddCert(evil.CA())
		if err := connect(t.Context(), middle, "127.0.0.1", testToken, fooled); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(m.saw(), []byte(testToken)) {
			t.Error("the tap does not work: this test proves nothing")
		}
	})
}

// checkSaw fails if what someone saw has the token in it, or what it could be told from.
func checkSaw(t *testing.T, saw []byte) {
	t.Helper()
	if !bytes.Contains(saw, []byte(CAPath)) {
		t.Fatalf("the tap saw no request: %q", saw)
	}
	digest := sha256.Sum256([]byte(testToken))
	for what, secret := range map[string][]byte{
		"token":               []byte("CANARY"),
		"token in hex":        []byte(hex.EncodeToString([]byte(testToken))),
		"token in base64":     []byte(base64.StdEncoding.EncodeToString([]byte(testToken))),
		"digest":              digest[:],
		"digest in hex":       []byte(hex.EncodeToString(digest[:])),
		"digest in base64":    []byte(base64.StdEncoding.EncodeToString(digest[:])),
		"a header with creds": []byte("Authorization"),
	} {
		if bytes.Contains(saw, secret) {
			t.Errorf("he saw the %s:\n%q", what, saw)
		}
	}
}

// An answer that someone recorded is worth nothing for the next client, who has another nonce.
func TestC25RecordedAnswerIsRefused(t *testing.T) {
	server := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	var recorded []byte
	m := &mitm{own: server, server: serveAuthority(t, server), rewrite: func(answer []byte) []byte {
		if recorded == nil {
			recorded = answer
		}
		return recorded
	}}
	middle := serveConns(t, m.handle)
	fetch := Fetch{Host: middle, Token: testToken, TokenID: testID}
	if _, err := FetchCA(context.Background(), fetch); err != nil {
		t.Fatal(err)
	}
	if _, err := FetchCA(context.Background(), fetch); !errors.Is(err, ErrProof) {
		t.Errorf("got %v, want %v", err, ErrProof)
	}
}

// jsonPEM is a certificate as it stands in an answer.
func jsonPEM(t *testing.T, cert *x509.Certificate) []byte {
	t.Helper()
	data, err := json.Marshal(string(certPEM(cert.Raw)))
	if err != nil {
		t.Error(err)
	}
	return data
}
