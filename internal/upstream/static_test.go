package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"
)

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// closedPort is an address that nothing listens on, and whose port the kernel gives to nobody.
const closedPort = "127.0.0.1:1"

func TestStaticReasons(t *testing.T) {
	silent := listen(t, "tcp", "127.0.0.1:0") // accepts by its backlog and never speaks TLS
	tests := []struct {
		name string
		cfg  StaticConfig
		want Reason
	}{
		{"nothing listens", StaticConfig{Network: "tcp", Address: closedPort}, Refused},
		{"no such host", StaticConfig{Network: "tcp", Address: "no-such-host.invalid:80"}, Unreachable},
		{"no such socket file", StaticConfig{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}, Unreachable},
		{"a network without half-close", StaticConfig{Network: "udp", Address: "127.0.0.1:9"}, Unreachable},
		{"tls with a silent service", StaticConfig{Network: "tcp", Address: silent.Addr().String(), TLS: &tls.Config{}, ConnectTimeout: 20 * time.Millisecond}, TimedOut},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewStatic(tt.cfg).Dial(t.Context(), &Visit{})
			var d *DialError
			if !errors.As(err, &d) || d.Reason != tt.want || d.MaybeSent || d.Member != tt.cfg.Address {
				t.Errorf("dial gave %#v, want reason %q of member %q and nothing sent", err, tt.want, tt.cfg.Address)
			}
		})
	}
}

func TestStaticDialEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewStatic(StaticConfig{Network: "tcp", Address: "127.0.0.1:1"}).Dial(ctx, &Visit{})
	if ReasonOf(err) != Canceled {
		t.Errorf("reason is %q, want canceled", ReasonOf(err))
	}
}

func TestStaticConnectsForItsOwnTimeout(t *testing.T) {
	for _, tt := range []struct {
		name     string
		timeout  time.Duration
		patience time.Duration
		want     Reason
	}{
		{"which ends", time.Nanosecond, time.Hour, TimedOut},
		{"whatever the patience is", time.Hour, time.Nanosecond, Refused},
		{"or, if it has none, for the patience", 0, time.Nanosecond, TimedOut},
		{"if there is one", 0, 0, Refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := NewStatic(StaticConfig{Network: "tcp", Address: "127.0.0.1:1", ConnectTimeout: tt.timeout})
			if _, err := s.Dial(t.Context(), &Visit{Patience: tt.patience}); ReasonOf(err) != tt.want {
				t.Errorf("reason is %q, want %q", ReasonOf(err), tt.want)
			}
		})
	}
}

func TestStaticHalfClose(t *testing.T) {
	for _, tt := range []struct{ network, addr string }{
		{"tcp", "127.0.0.1:0"},
		{"tcp", "[::1]:0"},
		{"unix", filepath.Join(t.TempDir(), "socket")},
	} {
		t.Run(tt.network+" "+tt.addr, func(t *testing.T) {
			ln := listen(t, tt.network, tt.addr)
			go echoAll(ln)
			d, err := NewStatic(StaticConfig{Name: "here", Network: tt.network, Address: ln.Addr().String()}).Dial(t.Context(), &Visit{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Conn.Close()
			roundTrip(t, d.Conn)
		})
	}
}

func TestStaticTLS(t *testing.T) {
	site := httptest.NewUnstartedServer(nil)
	site.StartTLS() // for its certificate only
	site.Close()
	ln := tls.NewListener(listen(t, "tcp", "127.0.0.1:0"), &tls.Config{Certificates: site.TLS.Certificates})
	go echoAll(ln)
	roots := x509.NewCertPool()
	roots.AddCert(site.Certificate())

	d, err := NewStatic(StaticConfig{Network: "tcp", Address: ln.Addr().String(), TLS: &tls.Config{RootCAs: roots}}).Dial(t.Context(), &Visit{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Conn.Close()
	roundTrip(t, d.Conn)

	_, err = NewStatic(StaticConfig{Network: "tcp", Address: ln.Addr().String(), TLS: &tls.Config{}}).Dial(t.Context(), &Visit{})
	if ReasonOf(err) != Unreachable {
		t.Errorf("a certificate that does not verify gave %v, want unreachable", err)
	}
}

func TestResetOfTLSIsNoEnd(t *testing.T) {
	site := httptest.NewUnstartedServer(nil)
	site.StartTLS()
	site.Close()
	ln := tls.NewListener(listen(t, "tcp", "127.0.0.1:0"), &tls.Config{Certificates: site.TLS.Certificates})
	got := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- err
			return
		}
		defer c.Close()
		_, err = io.ReadAll(c)
		got <- err
	}()
	roots := x509.NewCertPool()
	roots.AddCert(site.Certificate())
	d, err := NewStatic(StaticConfig{Network: "tcp", Address: ln.Addr().String(), TLS: &tls.Config{RootCAs: roots}}).Dial(t.Context(), &Visit{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Conn.Reset(); err != nil {
		t.Error(err)
	}
	if err := <-got; err == nil {
		t.Error("the service read a clean end after a reset")
	}
}

// echoAll sends each connection's bytes back when all of them are there, then ends.
func echoAll(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			p, _ := io.ReadAll(c)
			_, _ = c.Write(p)
		}()
	}
}

func roundTrip(t *testing.T, c Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p, err := io.ReadAll(c)
	if err != nil || string(p) != "ping" {
		t.Errorf("read %q, %v, want ping and an end", p, err)
	}
}
