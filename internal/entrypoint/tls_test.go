package entrypoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// tlsListener listens on loopback with a certificate of its own.
func tlsListener(t *testing.T, refused func(string)) *TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewTLS(ln, TLSConfig{
		TLS:       &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Log:       slog.New(slog.DiscardHandler),
		OnRefused: refused,
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestTLSGivesConnectionsPastStalledHandshakes(t *testing.T) {
	l := tlsListener(t, nil)
	stalled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Close()
	_, _ = stalled.Write([]byte{0x16, 3, 1, 2, 0})
	go func() {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			_, _ = io.WriteString(c, "hi")
			c.Close()
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.(*tls.Conn).ConnectionState().HandshakeComplete {
		t.Error("the handshake is not done")
	}
	if got, _ := io.ReadAll(c); string(got) != "hi" {
		t.Errorf("got %q", got)
	}
}

func TestTLSTellsPlainHTTPWhatItMet(t *testing.T) {
	var refused atomic.Value
	l := tlsListener(t, func(reason string) { refused.Store(reason) })
	go func() { _, _ = l.Accept() }() // until Close
	for first, want := range map[string]string{"GET / HTTP/1.1\r\n\r\n": "use https", "\x00\x01\x02garbage": ""} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, first)
		got, _ := io.ReadAll(c) // a reset may follow the answer
		if want == "" && strings.Contains(string(got), "HTTP") || !strings.Contains(string(got), want) {
			t.Errorf("%q: got %q", first, got)
		}
		c.Close()
	}
	if refused.Load() != RefusedHandshake {
		t.Errorf("counted as %v", refused.Load())
	}
}

func TestTLSCloseEndsHandshakesUnderWay(t *testing.T) {
	l := tlsListener(t, nil)
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: got %v, want net.ErrClosed", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout(err)) {
		t.Errorf("the handshake was left open: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// errTimeout is err if it is a timeout.
func errTimeout(err error) error {
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		return err
	}
	return errors.New("no timeout")
}
