package entrypoint

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// After an answer to a head that it did not read whole, net/http waits half a second before it closes.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func dial(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// wantRefused connects and waits for the other end to close the connection at once; the kernel may tell of it while it
// still connects.
func wantRefused(t *testing.T, addr net.Addr) {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func wantEcho(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// reasons gathers why connections were refused.
type reasons struct {
	mu  sync.Mutex
	all []string
}

func (r *reasons) add(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, reason)
}

func (r *reasons) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.all...)
}

func TestAllowed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		allow  []string
		source net.Addr
		want   bool
	}{
		{"no list", nil, &net.TCPAddr{IP: net.ParseIP("192.0.2.1")}, true},
		{"no list, other network", nil, &net.UnixAddr{}, true},
		{"within", []string{"10.0.0.0/8", "192.0.2.0/24"}, &net.TCPAddr{IP: net.ParseIP("192.0.2.1")}, true},
		{"not within", []string{"10.0.0.0/8"}, &net.TCPAddr{IP: net.ParseIP("192.0.2.1")}, false},
		{"IPv4 as a dual-stack socket shows it", []string{"192.0.2.0/24"}, &net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1").To16()}, true},
		{"IPv6", []string{"2001:db8::/32"}, &net.TCPAddr{IP: net.ParseIP("2001:db8::1")}, true},
		{"IPv6 with a zone", []string{"fe80::/10"}, &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, true},
		{"all of IPv6 is not IPv4", []string{"::/0"}, &net.TCPAddr{IP: net.ParseIP("192.0.2.1")}, false},
		{"a list, other network", []string{"0.0.0.0/0"}, &net.UnixAddr{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var allow []netip.Prefix
			for _, p := range tt.allow {
				allow = append(allow, netip.MustParsePrefix(p))
			}
			if got := allowed(allow, sourceOf(tt.source)); got != tt.want {
				t.Errorf("allowed is %v, want %v", got, tt.want)
			}
		})
	}
}
