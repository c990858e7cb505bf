//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Each wrong way to a server has its own message, for the client, which goes on trying, and for status, which does not.
func TestWrongWaysToAServerHaveTheirOwnMessages(t *testing.T) {
	s := startServer(t, "--control-addr", "0.0.0.0")
	other := startServer(t)
	website := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(website.Close)
	expired := startOwnCertificate(t, time.Now().Add(-time.Hour))

	token := []string{"--token-file", s.state + "/token"}
	trust := func(ca string) []string { return append([]string{"--auto-tls=false", "--tls-ca", ca}, token...) }
	for _, c := range []struct {
		name, addr string
		args       []string
		want       string
	}{
		{"a wrong token", s.control, []string{"--token-file", other.state + "/token"}, `could not prove that it knows this token`},
		{"a wrong CA", s.control, trust(other.state + "/ca.crt"), `does not come from a CA that is trusted here`},
		{"a name that the certificate has not", "127.0.0.3:" + port(t, s.control), token, `add --auto-tls-san 127\.0\.0\.3`},
		{"an expired certificate", expired.control, trust(expired.state + "/ca.crt"), `expired on`}, // the token does not come to be asked
		{"the data port", s.data, token, `speaks plain HTTP: is it the data port\?`},
		{"a port where nothing listens", freeAddr(t), token, `refused the connection`},
		{"another service's TLS port", website.Listener.Addr().String(), token, `speaks TLS but`},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := []string{"--url", "wss://" + c.addr}
			r := start(t, program{argv: append(append([]string{culvert(), "status"}, url...), c.args...)})
			r.line(t, c.want)
			if code := r.wait(t); code != 1 {
				t.Errorf("status: exit code %d, want 1", code)
			}
			r = start(t, program{argv: append(append([]string{culvert(), "client", "--upstream", "http://127.0.0.1:1"}, url...), c.args...)})
			r.line(t, c.want)
		})
	}
}

// startOwnCertificate starts a server with a certificate of its own for 127.0.0.1, which is its own CA.
func startOwnCertificate(t *testing.T, notAfter time.Time) *server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: notAfter.Add(-24 * time.Hour), NotAfter: notAfter, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile := write(t, dir, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})), 0o644)
	keyFile := write(t, dir, "ca.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), 0o600)
	s := &server{control: freeAddr(t), data: freeAddr(t), token: rand.Text(), state: dir}
	s.args = []string{
		culvert(), "server", "--control-addr", "127.0.0.1", "--control-port", port(t, s.control),
		"--data-addr", "127.0.0.1", "--port", port(t, s.data),
		"--auto-tls=false", "--tls-cert", certFile, "--tls-key", keyFile,
		"--token-file", write(t, dir, "token", s.token+"\n", 0o600),
	}
	s.again(t)
	return s
}
