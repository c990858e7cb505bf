package tls

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"culvert/internal/cork"
	"culvert/internal/forwardproxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// serve starts a server that hands each connection of the protocols to handle.
func serve(t testing.TB, protocols []string, handle func(*tls.Conn)) Dial {
	t.Helper()
	pair, pool := certificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				tc := tls.Server(cork.New(c), &tls.Config{
					Certificates: []tls.Certificate{pair}, NextProtos: protocols, DynamicRecordSizingDisabled: true,
				})
				defer tc.Close()
				if tc.Handshake() == nil {
					handle(tc)
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wait.Wait()
	})
	return Dial{
		Addr: ln.Addr().String(), TLS: &tls.Config{RootCAs: pool, DynamicRecordSizingDisabled: true},
		Token: "t0ken", Timeout: 5 * time.Second,
	}
}

// echo takes the token of the tests and sends back what comes.
func echo(c *tls.Conn) {
	token, err := ReadToken(c)
	if err != nil || token != "t0ken" {
		_ = Answer(c, Refused, "no token of ours")
		return
	}
	if Answer(c, OK, "") == nil {
		conn := Accept(c)
		_, _ = io.Copy(struct{ io.Writer }{conn}, conn)
	}
}

func TestBytesPassBothWays(t *testing.T) {
	c, err := serve(t, []string{"http/1.1", Protocol}, echo).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("culvert "), 1<<18) // 2 MiB, more than any buffer on the way
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("the echo differs, err %v", err)
	}
}

func TestThroughProxies(t *testing.T) {
	d := serve(t, []string{Protocol}, echo)
	for _, start := range []func() (*proxytest.Proxy, error){
		func() (*proxytest.Proxy, error) { return proxytest.HTTP("me", "secret", nil) },
		func() (*proxytest.Proxy, error) { return proxytest.SOCKS5("me", "secret") },
	} {
		p, err := start()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		d.Proxy = http.ProxyURL(p.URL)
		c, err := d.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "hi")
		got := make([]byte, 2)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hi" || p.Tunnels.Load() != 1 {
			t.Errorf("%s: got %q, %v, %d tunnels", p.URL.Scheme, got, err, p.Tunnels.Load())
		}
	}
}

func TestServersThatDoNotTakeTheClient(t *testing.T) {
	answer := func(status Status, text string) func(*tls.Conn) {
		return func(c *tls.Conn) {
			if _, err := ReadToken(c); err == nil {
				_ = Answer(c, status, text)
			}
		}
	}
	for _, tt := range []struct {
		name      string
		protocols []string
		handle    func(*tls.Conn)
		check     func(error) bool
	}{
		{"wrong token", []string{Protocol}, answer(Refused, "wrong token"), refusal(Refused, "wrong token")},
		{"going down", []string{Protocol}, answer(GoingDown, "later"), refusal(GoingDown, "later")},
		{"an answer of a later version", []string{Protocol}, answer(9, "a\x1b[1mb\nc"), refusal(9, "a?[1mb")},
		{"a long answer", []string{Protocol}, answer(Refused, strings.Repeat("x", 70_000)), refusal(Refused, strings.Repeat("x", maxText))},
		{"no answer", []string{Protocol}, func(c *tls.Conn) { _, _ = ReadToken(c) }, is(io.EOF)},
		{"half an answer", []string{Protocol}, func(c *tls.Conn) {
			_, _ = ReadToken(c)
			_, _ = c.Write([]byte{1, 0})
		}, is(io.ErrUnexpectedEOF)},
		{"another protocol", []string{"http/1.1"}, echo, is(ErrOtherProtocol)},
		{"no protocol", nil, echo, is(ErrOtherProtocol)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := serve(t, tt.protocols, tt.handle).Connect(t.Context()); err == nil || !tt.check(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func refusal(status Status, text string) func(error) bool {
	return func(err error) bool {
		var r *Refusal
		return errors.As(err, &r) && *r == Refusal{status, text}
	}
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

func TestTheTokenGoesToAVerifiedServerAlone(t *testing.T) {
	var shown atomic.Int64
	d := serve(t, []string{Protocol}, func(c *tls.Conn) {
		if _, err := ReadToken(c); err == nil {
			shown.Add(1)
		}
	})
	d.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	var unverified *tls.CertificateVerificationError
	if _, err := d.Connect(t.Context()); !errors.As(err, &unverified) || shown.Load() != 0 {
		t.Errorf("got %v, and the token was shown %d times", err, shown.Load())
	}
}

func TestConnectTakesNoLongerThanItMay(t *testing.T) {
	end := make(chan struct{})
	d := serve(t, []string{Protocol}, func(*tls.Conn) { <-end })
	defer close(end)
	d.Timeout = 50 * time.Millisecond
	if _, err := d.Connect(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Connect(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: got %v", err)
	}
}

func TestCloseEndsAWriteThatIsUnderWay(t *testing.T) {
	end := make(chan struct{})
	d := serve(t, []string{Protocol}, func(c *tls.Conn) {
		if _, err := ReadToken(c); err == nil && Answer(c, OK, "") == nil {
			<-end // without reading
		}
	})
	defer close(end)
	c, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wrote, progress := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		p := make([]byte, 128<<10)
		for {
			if _, err := c.Write(p); err != nil {
				wrote <- err
				return
			}
			select {
			case progress <- struct{}{}:
			default:
			}
		}
	}()
	for stalled := false; !stalled; {
		select {
		case <-progress:
		case <-time.After(200 * time.Millisecond):
			stalled = true
		}
	}
	start := time.Now()
	c.Close()
	<-wrote
	if took := time.Since(start); took > 4*time.Second { // a goodbye that waits for the peer takes 5
		t.Errorf("close took %v", took)
	}
}

func TestTokensOfEveryLength(t *testing.T) {
	for _, n := range []int{0, 1, 300, maxToken, maxToken + 1} {
		token := strings.Repeat("t", n)
		near, far := net.Pipe()
		read := make(chan string, 1)
		go func() {
			defer far.Close()
			got, err := ReadToken(far)
			if err == nil {
				_ = Answer(far, OK, "")
			}
			read <- got
		}()
		err := show(near, token)
		near.Close()
		if got := <-read; n <= maxToken && (err != nil || got != token) || n > maxToken && err == nil {
			t.Errorf("%d bytes: %v, and %d came", n, err, len(got))
		}
	}
}

func FuzzReadToken(f *testing.F) {
	f.Add([]byte{0, 2, 'h', 'i', 'x'})
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		token, err := ReadToken(r)
		if err == nil && len(in)-r.Len() != 2+len(token) {
			t.Errorf("a token of %d bytes took %d", len(token), len(in)-r.Len())
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0})
	f.Add([]byte{1, 0, 2, 'n', 'o'})
	f.Fuzz(func(t *testing.T, in []byte) {
		err := show(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), io.Discard}, "token")
		good := len(in) >= 3 && in[0] == 0
		if good {
			n := int(in[1])<<8 | int(in[2])
			good = n <= maxText && len(in) >= 3+n
		}
		if (err == nil) != good {
			t.Errorf("%q gave %v", in, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q is not one line", err)
		}
	})
}
