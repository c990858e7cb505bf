package forwardproxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"culvert/internal/cork"
	"culvert/internal/forwardproxy/proxytest"
)

// TestMain has the system trust the certificate of the tests' HTTPS proxy, which is how a real one is trusted.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "forwardproxy")
	if err != nil {
		panic(err)
	}
	file := filepath.Join(dir, "ca.pem")
	if err := errors.Join(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600),
		os.Setenv("SSL_CERT_FILE", file)); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

var pair = func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}()

// service echoes one line to each of its connections.
func service(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, line)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// closedPort is an address that nothing listens on, and whose port the kernel gives to nobody.
const closedPort = "127.0.0.1:1"

func proxies(t *testing.T) map[string]*proxytest.Proxy {
	t.Helper()
	all := map[string]*proxytest.Proxy{}
	add := func(p *proxytest.Proxy, err error) {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		all[p.URL.Scheme] = p
	}
	add(proxytest.HTTP("me", "secret", nil))
	add(proxytest.HTTP("me", "secret", &tls.Config{Certificates: []tls.Certificate{pair}}))
	add(proxytest.SOCKS5("me", "secret"))
	return all
}

func TestEachKindOfProxy(t *testing.T) {
	for scheme, p := range proxies(t) {
		t.Run(scheme, func(t *testing.T) {
			c, err := Dial(t.Context(), http.ProxyURL(p.URL), "https", service(t))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, "hi\n")
			if got, err := io.ReadAll(c); err != nil || string(got) != "hi\n" || p.Tunnels.Load() != 1 {
				t.Errorf("got %q, %v, %d tunnels", got, err, p.Tunnels.Load())
			}
			if cork.Under(c) == nil {
				t.Error("the connection is not corked")
			}

			other := *p.URL
			other.User = url.UserPassword("me", "canary")
			_, err = Dial(t.Context(), http.ProxyURL(&other), "https", service(t))
			var failed *Error
			if !errors.As(err, &failed) || !failed.Named || failed.Proxy != p.URL.Host || strings.Contains(err.Error(), "canary") {
				t.Errorf("with a wrong password: got %v", err)
			}
			if want := map[bool]int{true: 0, false: 407}[scheme == "socks5"]; failed.Status != want {
				t.Errorf("with a wrong password: status %d, want %d", failed.Status, want)
			}
			if _, err := Dial(t.Context(), http.ProxyURL(p.URL), "https", closedPort); !errors.As(err, &failed) {
				t.Errorf("to a closed port: got %v", err)
			}
		})
	}
}

func TestWhatIsChosen(t *testing.T) {
	p := proxies(t)["http"]
	addr, asked := service(t), ""
	choose := func(r *http.Request) (*url.URL, error) {
		asked = r.URL.String()
		if r.URL.Scheme == "http" {
			return nil, nil
		}
		return p.URL, nil
	}
	for _, tt := range []struct {
		choose  Choose
		scheme  string
		tunnels int64
	}{
		{nil, "https", 0},
		{choose, "http", 0},
		{choose, "https", 1},
	} {
		c, err := Dial(t.Context(), tt.choose, tt.scheme, addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "hi\n")
		if got, err := io.ReadAll(c); err != nil || string(got) != "hi\n" { // a proxy counts a tunnel before it carries anything
			t.Fatalf("got %q, %v", got, err)
		}
		c.Close()
		if got := p.Tunnels.Load(); got != tt.tunnels || tt.choose != nil && asked != tt.scheme+"://"+addr {
			t.Errorf("%s: %d tunnels, want %d; asked for %q", tt.scheme, got, tt.tunnels, asked)
		}
	}
}

func TestProxiesThatCannotBeUsed(t *testing.T) {
	parse := func(s string) Choose {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return http.ProxyURL(u)
	}
	for _, tt := range []struct {
		name   string
		choose Choose
		want   error
		text   string
	}{
		{"unreadable", func(*http.Request) (*url.URL, error) { return nil, errors.New("canary") }, ErrUnreadable, "proxy"},
		{"of another kind", parse("ftp://" + service(t)), nil, `"ftp"`},
		{"not there", parse("http://" + closedPort), syscall.ECONNREFUSED, "proxy 127.0.0.1"},
		{"no proxy", parse("http://" + service(t)), nil, "malformed"},
		{"no SOCKS proxy", parse("socks5://" + service(t)), nil, "proxy"},
		{"no TLS", parse("https://" + service(t)), nil, "proxy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := Dial(ctx, tt.choose, "https", "192.0.2.1:1")
			var failed *Error
			if !errors.As(err, &failed) || tt.want != nil && !errors.Is(err, tt.want) ||
				!strings.Contains(err.Error(), tt.text) && !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAProxyThatIsSilentEndsWithTheContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // the kernel takes connections, and nobody answers
	for _, scheme := range []string{"http", "https", "socks5"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		_, err := Dial(ctx, http.ProxyURL(&url.URL{Scheme: scheme, Host: ln.Addr().String()}), "https", "192.0.2.1:1")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %v, want the deadline", scheme, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			defer far.Close()
			if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
				_, _ = far.Write(answer)
			}
		}()
		_ = connect(near, &url.URL{Scheme: "http", Host: "proxy:3128"}, "h:1")
	})
}
