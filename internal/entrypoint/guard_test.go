package entrypoint

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pipes is a listener without a network, for bubbles of synctest.
type pipes struct{ conns chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error { return nil }
func (pipes) Addr() net.Addr { return &net.UnixAddr{} }

// sourced is a connection that comes from an address.
type sourced struct {
	net.Conn
	from net.Addr
}

func (s sourced) RemoteAddr() net.Addr { return s.from }

// accept has the guard accept one connection from a source; the far end is the stranger's.
func accept(t *testing.T, g *Guard, p pipes, source string) (near, far net.Conn) {
	t.Helper()
	a, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	p.conns <- sourced{a, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 1))}
	near, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return near, far
}

func newPipes() pipes { return pipes{make(chan net.Conn, 100)} }

func TestStrangersAreGoneAtTheDeadline(t *testing.T) {
	for _, tt := range []struct {
		name string
		ask  func(net.Conn)
		do   func(net.Conn) error
		want time.Duration
	}{
		{"silent", func(net.Conn) {}, read, 5 * time.Second},
		{"not reading", func(net.Conn) {}, write, 5 * time.Second},
		{"a later deadline is asked for", func(c net.Conn) { _ = c.SetDeadline(time.Now().Add(time.Hour)) }, read, 5 * time.Second},
		{"a later read deadline is asked for", func(c net.Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Hour)) }, read, 5 * time.Second},
		{"a later write deadline is asked for", func(c net.Conn) { _ = c.SetWriteDeadline(time.Now().Add(time.Hour)) }, write, 5 * time.Second},
		{"no deadline is asked for", func(c net.Conn) { _ = c.SetDeadline(time.Time{}) }, read, 5 * time.Second},
		{"an earlier deadline is asked for", func(c net.Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Second)) }, read, time.Second},
		{"words one by one", func(net.Conn) {}, drip, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				g := NewGuard(p, GuardConfig{Log: quiet()})
				c, far := accept(t, g, p, "192.0.2.1")
				start := time.Now()
				if tt.name == "words one by one" {
					go func() {
						for {
							if _, err := far.Write([]byte("x")); err != nil {
								return
							}
							time.Sleep(time.Second)
						}
					}()
				}
				tt.ask(c)
				if err := tt.do(c); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("it ended with %v, want the deadline", err)
				}
				if took := time.Since(start); took != tt.want {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
				far.Close()
				time.Sleep(time.Minute) // the stranger's goroutine ends
			})
		})
	}
}

func read(c net.Conn) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

func write(c net.Conn) error {
	_, err := c.Write(make([]byte, 1))
	return err
}

func drip(c net.Conn) error {
	for {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // as a server does for each message
		if err := read(c); err != nil {
			return err
		}
	}
}

func TestAdmittedConnectionsHaveTheirOwnDeadlines(t *testing.T) {
	for _, tt := range []struct {
		name string
		ask  time.Duration // before Admit; 0: none
		end  time.Duration
	}{
		{"none was asked for", 0, 24 * time.Hour},
		{"a later one was asked for", time.Hour, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				g := NewGuard(p, GuardConfig{Log: quiet()})
				c, far := accept(t, g, p, "192.0.2.1")
				start := time.Now()
				if tt.ask > 0 {
					_ = c.SetDeadline(start.Add(tt.ask))
				}
				Admit(c)
				Admit(c)
				go func() {
					time.Sleep(24 * time.Hour)
					far.Close()
				}()
				err := read(c)
				if took := time.Since(start); took != tt.end {
					t.Errorf("it ended with %v after %v, want %v", err, took, tt.end)
				}
				_ = c.SetDeadline(time.Time{})
				time.Sleep(24 * time.Hour)
			})
		})
	}
}

func TestStrangersAreFew(t *testing.T) {
	p := newPipes()
	var refused reasons
	g := NewGuard(p, GuardConfig{
		MaxUnauthenticated: 4, MaxPerSource: 2, Log: quiet(), OnRefused: refused.add,
		Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
	})
	knock := func(source string) net.Conn {
		a, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		p.conns <- sourced{a, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 1))}
		return far
	}
	a, _ := accept(t, g, p, "192.0.2.1")
	b, _ := accept(t, g, p, "::ffff:192.0.2.1") // the same
	thrown := []net.Conn{knock("192.0.2.1"), knock("198.51.100.1")}
	c, _ := accept(t, g, p, "2001:db8::1") // those before it are thrown out on the way
	d, _ := accept(t, g, p, "2001:db8::2:1")
	thrown = append(thrown, knock("2001:db8::3"))
	knocked := knock("2001:db8:1::1")
	Admit(a)
	// One place is free for everyone, and one for the first source.
	e, err := g.Accept() // throws out two: the /64 is full; everything is not, after the admission
	if err != nil {
		t.Fatal(err)
	}
	thrown = append(thrown, knock("192.0.2.9"))
	_ = knocked
	close(p.conns)
	if _, err := g.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept gave %v, want closed", err)
	}
	for i, far := range thrown {
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("connection %d: read %v, want an end", i, err)
		}
	}
	want := []string{RefusedPerSource, RefusedSource, RefusedPerSource, RefusedTooMany}
	if diff := cmp.Diff(want, refused.list()); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	for _, c := range []net.Conn{a, b, c, d, e} {
		c.Close()
		c.Close()
	}
	if g.total != 0 || len(g.bySource) != 0 {
		t.Errorf("%d connections are counted after all were closed, by source %v", g.total, g.bySource)
	}
}

func TestAdmitReachesThroughTLS(t *testing.T) {
	p := newPipes()
	g := NewGuard(p, GuardConfig{Log: quiet()})
	c, far := accept(t, g, p, "192.0.2.1")
	site := httptest.NewUnstartedServer(nil)
	site.StartTLS()
	site.Close()
	server := tls.Server(c, &tls.Config{Certificates: site.TLS.Certificates})
	go func() { _ = tls.Client(far, &tls.Config{InsecureSkipVerify: true}).Handshake() }()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if g.total != 1 {
		t.Errorf("%d connections are counted, want 1", g.total)
	}
	Admit(server)
	if g.total != 0 {
		t.Errorf("%d connections are counted after Admit, want 0", g.total)
	}
	Admit(far) // of no guard
	Admit(nil)
}

// The machine's own sockets and clock, once.
func TestSilentSocketsAreGone(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := NewGuard(ln, GuardConfig{Deadline: 50 * time.Millisecond, Log: quiet()})
	defer g.Close()
	for range 20 {
		dial(t, g.Addr())
		c, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %v, want the deadline", err)
		}
	}
}

func BenchmarkGuard(b *testing.B) {
	p := pipes{make(chan net.Conn, 1)}
	g := NewGuard(p, GuardConfig{Log: quiet()})
	near, far := net.Pipe()
	defer far.Close()
	conn := sourced{near, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}
	b.ReportAllocs()
	for b.Loop() {
		p.conns <- conn
		c, _ := g.Accept()
		Admit(c)
	}
	near.Close()
}
