package entrypoint

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/cidr"
	"culvert/internal/proxyproto"
)

var (
	balancer = netip.MustParseAddrPort("10.0.0.5:40000")
	stranger = netip.MustParseAddrPort("203.0.113.66:40000")
	ours     = netip.MustParseAddrPort("192.0.2.10:443")
	visitor  = netip.MustParseAddrPort("198.51.100.7:51000")
	wanted   = netip.MustParseAddrPort("192.0.2.99:8443")
)

const line = "PROXY TCP4 198.51.100.7 192.0.2.99 51000 8443\r\n" // of visitor to wanted

func trusting(prefixes ...string) *ProxyPolicy {
	p := &ProxyPolicy{}
	for _, s := range prefixes {
		p.Trusted = append(p.Trusted, netip.MustParsePrefix(s))
	}
	return p
}

func header2(h proxyproto.Header) string { return string(h.AppendTo(nil, proxyproto.V2)) }

// clientHello is what a browser would send to ask for the host.
func clientHello(t testing.TB, host string) string {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(far, &tls.Config{ServerName: host}).Handshake() // ends with the Close of near
	}()
	p := make([]byte, 16<<10)
	n, err := near.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	_ = near.Close()
	<-done
	return string(p[:n])
}

// what the other end of a connection does.
type behaviour struct {
	send  []string // in writes of their own
	close bool     // then; else it waits
}

// received has a Reception receive a connection of the source whose other end behaves so. Time is the bubble's.
func received(t *testing.T, r *Reception, source netip.AddrPort, b behaviour) (v Visitor, took time.Duration, err error) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, p := range b.send {
			if _, err := io.WriteString(far, p); err != nil {
				return
			}
		}
		if b.close {
			_ = far.Close()
		}
	}()
	begun := time.Now()
	v, err = r.receive(near, Visitor{Source: source, Destination: ours})
	took = time.Since(begun)
	_ = near.Close()
	<-done
	_ = far.Close()
	return v, took, err
}

func reasonOf(err error) string {
	var refusal *Refusal
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrProbe):
		return "probe"
	case errors.As(err, &refusal):
		return refusal.Reason
	}
	return err.Error()
}

func TestReception(t *testing.T) {
	hello := clientHello(t, "api.example.com")
	aws, err := hex.DecodeString("0d0a0d0a000d0a515549540a20110054030004d0b1a8f3" + "04004a" + strings.Repeat("00", 74))
	if err != nil {
		t.Fatal(err)
	}
	local := header2(proxyproto.Header{Local: true})
	v2 := header2(proxyproto.Header{Transport: proxyproto.TCP, Source: visitor, Destination: wanted})
	behind := func() *Reception { return &Reception{Proxy: trusting("10.0.0.0/8")} }
	withHello := func() *Reception { return &Reception{Proxy: trusting("10.0.0.0/8"), ClientHello: true} }
	probed := func() *Reception {
		return &Reception{ProbeSources: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}}
	}
	direct := Visitor{Source: stranger, Destination: ours}
	itself := Visitor{Source: balancer, Destination: ours}
	through := Visitor{Source: visitor, Destination: wanted, Via: balancer}
	tests := []struct {
		name      string
		reception *Reception
		from      netip.AddrPort
		does      behaviour
		refused   string // "" for none, "probe"
		want      Visitor
		first     string
		after     time.Duration
	}{
		{name: "trusted, version 1", reception: behind(), from: balancer, does: behaviour{send: []string{line}}, want: through},
		{name: "trusted, version 2", reception: behind(), from: balancer, does: behaviour{send: []string{v2}}, want: through},
		{name: "trusted, with payload", reception: behind(), from: balancer, does: behaviour{send: []string{line + "SSH-2.0"}}, want: through, first: "SSH-2.0"},
		{name: "trusted, with a second header, which is payload", reception: behind(), from: balancer, does: behaviour{send: []string{v2 + line}}, want: through, first: line},
		{name: "trusted, UNKNOWN", reception: behind(), from: balancer, does: behaviour{send: []string{"PROXY UNKNOWN\r\n"}}, want: itself},
		{name: "trusted, LOCAL and bytes", reception: behind(), from: balancer, does: behaviour{send: []string{local, "PING"}}, want: itself, first: "PING"},
		{name: "trusted, LOCAL of AWS and bytes", reception: behind(), from: balancer, does: behaviour{send: []string{string(aws) + "GET /"}}, want: itself, first: "GET /"},
		{name: "trusted, LOCAL and a close", reception: behind(), from: balancer, does: behaviour{send: []string{local}, close: true}, refused: "probe"},
		{name: "trusted, LOCAL and silence, for a service that speaks first", reception: behind(), from: balancer, does: behaviour{send: []string{string(aws)}}, want: itself, after: 200 * time.Millisecond},
		{name: "trusted, a connect and a close", reception: behind(), from: balancer, does: behaviour{close: true}, refused: "probe"},
		{name: "trusted, no header", reception: behind(), from: balancer, does: behaviour{send: []string{"SSH-2.0-client\r\n"}}, refused: RefusedNoHeader},
		{name: "trusted, a bad header", reception: behind(), from: balancer, does: behaviour{send: []string{"PROXY TCP4 1 2 3 4\r\n"}}, refused: RefusedBadHeader},
		{name: "trusted, a header that is cut", reception: behind(), from: balancer, does: behaviour{send: []string{line[:20]}, close: true}, refused: RefusedBadHeader},
		{name: "trusted, silence", reception: behind(), from: balancer, refused: RefusedLateHeader, after: 5 * time.Second},
		{name: "trusted, half a header", reception: behind(), from: balancer, does: behaviour{send: []string{line[:20]}}, refused: RefusedLateHeader, after: 5 * time.Second},
		{
			name: "trusted, silence, a shorter timeout", from: balancer, refused: RefusedLateHeader, after: time.Second,
			reception: &Reception{Proxy: trusting("10.0.0.0/8"), HeaderTimeout: time.Second},
		},
		{
			name: "trusted, optional, no header", from: balancer, does: behaviour{send: []string{"GET / HTTP/1.0\r\n"}}, want: itself, first: "GET / HTTP/1.0\r\n",
			reception: &Reception{Proxy: &ProxyPolicy{Trusted: trusting("10.0.0.0/8").Trusted, Optional: true}},
		},
		{
			name: "trusted, of nginx to a mixed pair", from: balancer, refused: RefusedBadHeader,
			does:      behaviour{send: []string{"PROXY TCP6 2001:db8::7 192.0.2.99 51000 8443\r\n"}},
			reception: behind(),
		},
		{name: "not trusted, nothing is waited for", reception: behind(), from: stranger, want: direct},
		{
			name: "nobody is trusted", from: balancer, want: itself, reception: &Reception{Proxy: &ProxyPolicy{}},
		},
		{name: "trusted, and a ClientHello", reception: withHello(), from: balancer, does: behaviour{send: []string{v2, hello}}, want: withHost(through, "api.example.com"), first: hello},
		{name: "trusted, and a ClientHello in the same packet", reception: withHello(), from: balancer, does: behaviour{send: []string{v2 + hello}}, want: withHost(through, "api.example.com"), first: hello},
		{name: "a ClientHello in pieces", reception: withHello(), from: stranger, does: behaviour{send: []string{hello[:3], hello[3:90], hello[90:]}}, want: withHost(direct, "api.example.com"), first: hello},
		{name: "a ClientHello and more", reception: withHello(), from: stranger, does: behaviour{send: []string{hello + "more"}}, want: withHost(direct, "api.example.com"), first: hello + "more"},
		{name: "a ClientHello without a name", reception: withHello(), from: stranger, does: behaviour{send: []string{clientHello(t, "192.0.2.1")}}, want: direct, first: clientHelloLength},
		{name: "no ClientHello", reception: withHello(), from: stranger, does: behaviour{send: []string{"GET / HTTP/1.1\r\n"}}, refused: RefusedNoHello},
		{name: "a ClientHello cut short", reception: withHello(), from: stranger, does: behaviour{send: []string{hello[:100]}, close: true}, refused: RefusedNoHello},
		{name: "a stranger comes and goes", reception: withHello(), from: stranger, does: behaviour{close: true}, refused: RefusedNoHello},
		{name: "LOCAL and a close where a ClientHello is due", reception: withHello(), from: balancer, does: behaviour{send: []string{local}, close: true}, refused: "probe"},
		{name: "a visitor's header and a close where a ClientHello is due", reception: withHello(), from: balancer, does: behaviour{send: []string{v2}, close: true}, refused: "probe"},
		{name: "silence where a ClientHello is due", reception: withHello(), from: stranger, refused: RefusedLateHello, after: 5 * time.Second},
		{name: "half a ClientHello", reception: withHello(), from: stranger, does: behaviour{send: []string{hello[:100]}}, refused: RefusedLateHello, after: 5 * time.Second},
		{
			name: "half a ClientHello, a shorter timeout", from: stranger, does: behaviour{send: []string{hello[:100]}}, refused: RefusedLateHello, after: time.Second,
			reception: &Reception{ClientHello: true, HelloTimeout: time.Second},
		},
		{name: "not trusted, a header where a ClientHello is due", reception: withHello(), from: stranger, does: behaviour{send: []string{v2 + hello}}, refused: RefusedSpoof},
		{name: "not trusted, a header in two pieces where a ClientHello is due", reception: withHello(), from: stranger, does: behaviour{send: []string{"PRO", "XY TCP4"}}, refused: RefusedSpoof},
		{name: "probe source, a connect and a close", reception: probed(), from: balancer, does: behaviour{close: true}, refused: "probe"},
		{name: "probe source, bytes", reception: probed(), from: balancer, does: behaviour{send: []string{"PING"}}, want: itself, first: "PING"},
		{name: "probe source, silence", reception: probed(), from: balancer, want: itself, after: 200 * time.Millisecond},
		{name: "another source than that of probes", reception: probed(), from: stranger, want: direct},
		{
			name: "probe with the header of a visitor", from: balancer, does: behaviour{send: []string{line}, close: true}, refused: "probe",
			reception: &Reception{Proxy: trusting("10.0.0.0/8"), ProbeSources: probed().ProbeSources},
		},
		{
			name: "a visitor that is not allowed, behind a balancer that is", from: balancer, does: behaviour{send: []string{line}}, refused: RefusedSource,
			reception: &Reception{Proxy: trusting("10.0.0.0/8"), Allow: trusting("10.0.0.0/8").Trusted},
		},
		{
			name: "a visitor that is allowed, behind a balancer that is not", from: balancer, does: behaviour{send: []string{line}}, want: through,
			reception: &Reception{Proxy: trusting("10.0.0.0/8"), Allow: trusting("198.51.100.0/24").Trusted},
		},
		{
			name: "a balancer for itself, which no list names", from: balancer, does: behaviour{send: []string{local, "PING"}}, want: itself, first: "PING",
			reception: &Reception{Proxy: trusting("10.0.0.0/8"), Allow: trusting("198.51.100.0/24").Trusted},
		},
		{
			name: "a direct visitor that is not allowed", from: stranger, refused: RefusedSource,
			reception: &Reception{Proxy: trusting("10.0.0.0/8"), Allow: trusting("198.51.100.0/24").Trusted},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var counted reasons
				tt.reception.OnRefused = counted.add
				v, took, err := received(t, tt.reception, tt.from, tt.does)
				if got := reasonOf(err); got != tt.refused {
					t.Fatalf("refused for %q (%v), want %q", got, err, tt.refused)
				}
				if took != tt.after {
					t.Errorf("took %s, want %s", took, tt.after)
				}
				if want := countedAs(tt.refused); !slices.Equal(counted.list(), want) {
					t.Errorf("counted %q, want %q", counted.list(), want)
				}
				if len(tt.reception.waiting) > 0 {
					t.Errorf("still waits for %v", tt.reception.waiting)
				}
				if err != nil {
					return
				}
				if v.Source != tt.want.Source || v.Destination != tt.want.Destination || v.Via != tt.want.Via || v.Host != tt.want.Host {
					t.Errorf("got %+v\nwant %+v", v, tt.want)
				}
				untrusted := tt.reception.Proxy != nil && !cidr.Contain(tt.reception.Proxy.Trusted, tt.from.Addr())
				if want := untrusted && !tt.reception.ClientHello; (v.Guard != nil) != want { // a ClientHello is no header
					t.Errorf("has a guard: %t, want %t", v.Guard != nil, want)
				}
				if tt.first == clientHelloLength {
					tt.first = tt.does.send[0]
				}
				if string(v.First) != tt.first {
					t.Errorf("first bytes %q, want %q", v.First, tt.first)
				}
			})
		})
	}
}

// clientHelloLength stands for "all that was sent", which differs from one ClientHello to the next.
const clientHelloLength = "*"

func withHost(v Visitor, host string) Visitor {
	v.Host = host
	return v
}

func countedAs(refused string) []string {
	if refused == "" || refused == "probe" {
		return nil
	}
	return []string{refused}
}

// C16: what a trusted source sends is the same header however it is cut.
func TestHeaderMayBeSplitAtEveryByte(t *testing.T) {
	hello := clientHello(t, "api.example.com")
	v2 := header2(proxyproto.Header{
		Transport: proxyproto.TCP, Source: visitor, Destination: wanted,
		TLVs: []proxyproto.TLV{{Type: proxyproto.TypeAuthority, Value: []byte("api.example.com")}, {Type: proxyproto.TypeCRC32C}},
	})
	longest := "PROXY UNKNOWN " + strings.Repeat("f", proxyproto.MaxV1-16) + "\r\n"
	for name, header := range map[string]string{"version 1": line, "version 2": v2, "107 bytes": longest} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &Reception{Proxy: trusting("10.0.0.0/8"), ClientHello: true}
				all := header + hello
				for i := 1; i < len(all); i++ {
					v, _, err := received(t, r, balancer, behaviour{send: []string{all[:i], all[i:]}})
					if err != nil || v.Host != "api.example.com" || string(v.First) != hello || v.Source != visitor && name != "107 bytes" {
						t.Fatalf("cut after %d: %v, %s, %q", i, err, v.Source, v.Host)
					}
				}
			})
		})
	}
}

// C16, and slow strangers: whoever stops at any byte of a header or ClientHello is gone within five seconds, and one that
// sends a byte now and then gets no more.
func TestWhoeverStallsIsGoneWithinFiveSeconds(t *testing.T) {
	hello := clientHello(t, "api.example.com")
	v2 := header2(proxyproto.Header{Transport: proxyproto.TCP, Source: visitor, Destination: wanted})
	for name, tt := range map[string]struct {
		source netip.AddrPort
		sends  string
	}{
		"version 1":     {balancer, line},
		"version 2":     {balancer, v2},
		"a ClientHello": {stranger, hello},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &Reception{Proxy: trusting("10.0.0.0/8"), ClientHello: true}
				for i := range tt.sends {
					_, took, err := received(t, r, tt.source, behaviour{send: []string{tt.sends[:i]}})
					if reason := reasonOf(err); took != 5*time.Second || reason != RefusedLateHeader && reason != RefusedLateHello {
						t.Fatalf("silent after %d of %d bytes: %v after %s", i, len(tt.sends), err, took)
					}
				}
				near, far := net.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					for i := range tt.sends {
						if _, err := io.WriteString(far, tt.sends[i:i+1]); err != nil {
							return
						}
						time.Sleep(300 * time.Millisecond)
					}
				}()
				begun := time.Now()
				_, err := r.receive(near, Visitor{Source: tt.source, Destination: ours})
				if took := time.Since(begun); err == nil || took > 5*time.Second {
					t.Errorf("a byte at a time: %v after %s", err, took)
				}
				_ = near.Close()
				<-done
			})
		})
	}
}

// T10, C16: of a source that is not trusted nothing is parsed and nothing passes. Its connection has a guard, which says
// so as soon as the signature is whole, however it is cut.
func TestHeaderOfAnUntrustedSourceIsRefused(t *testing.T) {
	var counted reasons
	r := &Reception{Proxy: trusting("10.0.0.0/8"), OnRefused: counted.add}
	v2 := header2(proxyproto.Header{Local: true})
	for name, tt := range map[string]struct {
		sends string
		whole int // bytes of the signature
	}{"version 1": {line, 6}, "version 2, LOCAL": {v2, 12}} {
		t.Run(name, func(t *testing.T) {
			v, err := r.receive(nil, Visitor{Source: stranger, Destination: ours}) // nothing is read of it
			if err != nil || v.Guard == nil || v.Header != nil || v.Source != stranger {
				t.Fatalf("got %+v, %v", v, err)
			}
			for i := range tt.whole {
				if more, err := v.Guard([]byte(tt.sends[:i])); !more || err != nil {
					t.Fatalf("after %d bytes: more %t, %v", i, more, err)
				}
			}
			before := len(counted.list())
			_, err = v.Guard([]byte(tt.sends[:tt.whole]))
			if got := counted.list()[before:]; reasonOf(err) != RefusedSpoof || !slices.Equal(got, []string{RefusedSpoof}) {
				t.Errorf("got %v, counted %q", err, got)
			}
		})
	}
	v, _ := r.receive(nil, Visitor{Source: stranger})
	if more, err := v.Guard([]byte("PROPFIND / HTTP/1.1\r\n")); more || err != nil {
		t.Errorf("something else: more %t, %v", more, err)
	}
}

// T10: who is not named is not trusted, and that is everyone if nobody is.
func TestNobodyIsTrustedWithoutAList(t *testing.T) {
	r := &Reception{Proxy: &ProxyPolicy{}}
	v, err := r.receive(nil, Visitor{Source: balancer, Destination: ours})
	if err != nil || v.Guard == nil {
		t.Fatalf("got %+v, %v", v, err)
	}
	if _, err := v.Guard([]byte(line)); reasonOf(err) != RefusedSpoof {
		t.Errorf("got %v", err)
	}
}

func TestReceptionBoundsWhatOneSourceMakesItWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var counted reasons
		r := &Reception{Proxy: trusting("10.0.0.0/8"), ClientHello: true, MaxWaiting: 3, MaxWaitingTrusted: 5, OnRefused: counted.add}
		outcome := make(chan string)
		var open []net.Conn
		come := func(source netip.AddrPort) {
			near, far := net.Pipe()
			open = append(open, near, far)
			go func() {
				_, err := r.receive(near, Visitor{Source: source, Destination: ours})
				outcome <- reasonOf(err)
			}()
			synctest.Wait()
		}
		neighbour := netip.MustParseAddrPort("[2001:db8::1]:1")
		inItsNetwork := netip.MustParseAddrPort("[2001:db8::ffff]:1")
		for _, source := range []netip.AddrPort{stranger, stranger, stranger, neighbour, neighbour, inItsNetwork, balancer, balancer, balancer, balancer, balancer} {
			come(source)
		}
		for _, source := range []netip.AddrPort{stranger, inItsNetwork, balancer} {
			come(source)
			if got := <-outcome; got != RefusedWaiting {
				t.Errorf("one too many of %s: %q", source, got)
			}
		}
		come(netip.MustParseAddrPort("203.0.113.67:1")) // somebody else
		for range 12 {
			if got := <-outcome; got != RefusedLateHello && got != RefusedLateHeader {
				t.Errorf("got %q", got)
			}
		}
		if len(r.waiting) != 0 {
			t.Errorf("still waits for %v", r.waiting)
		}
		for _, c := range open {
			_ = c.Close()
		}
	})
}

func TestNoReceptionReadsNothing(t *testing.T) {
	ln, err := ListenTCP(Config{Addr: "127.0.0.1:0", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- ln.Run(ctx, func(_ context.Context, c *net.TCPConn, over func()) {
			defer over()
			defer c.Close()
			var r *Reception
			v, err := r.Receive(c)
			switch {
			case err != nil:
			case v.Source.String() != c.RemoteAddr().String() || v.Destination.String() != c.LocalAddr().String():
				err = fmt.Errorf("got %+v", v)
			case v.Guard != nil || v.First != nil || v.Header != nil || v.Via.IsValid():
				err = fmt.Errorf("got %+v", v)
			}
			p := make([]byte, len(line))
			if _, readErr := io.ReadFull(c, p); readErr != nil || string(p) != line {
				err = fmt.Errorf("read %q, %w", p, readErr)
			}
			got <- err
		})
	}()
	c := dial(t, ln.Addr())
	if _, err := io.WriteString(c, line); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestUnknownHostIsTold has the visitor send more than its ClientHello, as with early data.
func TestUnknownHostIsTold(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 100)) // the rest is not read yet when the alert goes out
		UnknownHost(c)
	}()
	err = tls.Client(dial(t, ln.Addr()), &tls.Config{ServerName: "nobody.example"}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("got %v", err)
	}
	_ = ln.Close()
	<-done
}

// TestUnknownHostDoesNotWaitForTheVisitor has it stay, and not read either.
func TestUnknownHostDoesNotWaitForTheVisitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		begun := time.Now()
		UnknownHost(near)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func BenchmarkReceptionOfStrangers(b *testing.B) {
	r := &Reception{Proxy: trusting("10.0.0.0/8")}
	v := Visitor{Source: stranger, Destination: ours}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.receive(nil, v); err != nil {
			b.Fatal(err)
		}
	}
}
