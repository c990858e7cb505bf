package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"culvert/internal/mux"
	"culvert/internal/proxyproto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func muxPair(t *testing.T) (client, server *mux.Session) {
	t.Helper()
	a, b := net.Pipe()
	client, err := mux.Client(a, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server, err = mux.Server(b, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close(nil)
		server.Close(nil)
	})
	return client, server
}

// join makes a session, whose server answers the hello with the welcome.
func join(t *testing.T, h Hello, w Welcome) (client, server *Session, got Hello, welcome Welcome) {
	t.Helper()
	mc, ms := muxPair(t)
	answered := make(chan error, 1)
	go func() {
		var err error
		server, got, err = Accept(t.Context(), ms)
		if err == nil {
			err = server.Welcome(w)
		}
		answered <- err
	}()
	client, welcome, err := Connect(t.Context(), mc, h)
	if err = errors.Join(err, <-answered); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close(nil)
		server.Close(nil)
	})
	return client, server, got, welcome
}

func TestHelloAndWelcome(t *testing.T) {
	h := Hello{
		ID: "shop", Instance: "i1", Epoch: 5, Counter: 2, Labels: map[string]string{"site": "attic"},
		Offers: []Offer{{Tunnel: "tcp/2222", Upstream: "localhost:22"}, {Tunnel: "http/*", Upstream: "*=http://127.0.0.1:1"}},
	}
	w := Welcome{Software: "v1", Answers: []Answer{{Tunnel: "tcp/2222", Address: ":2222"}, {Tunnel: "http/*", Refused: "no"}}}
	_, _, got, welcome := join(t, h, w)
	h.Version, w.Version = Version, Version
	if d := cmp.Diff(h, got); d != "" {
		t.Errorf("hello (-sent +received):\n%s", d)
	}
	if d := cmp.Diff(w, welcome); d != "" {
		t.Errorf("welcome (-sent +received):\n%s", d)
	}
}

func TestOpenCarriesTheVisit(t *testing.T) {
	client, server, _, _ := join(t, Hello{ID: "a", Instance: "b"}, Welcome{})
	want := Open{
		Tunnel: TCPName(2222), ID: "c1", Host: "app.example.com",
		Source: netip.MustParseAddrPort("[2001:db8::1]:4000"), Destination: netip.MustParseAddrPort("192.0.2.1:2222"),
		ProxyProtocol: proxyproto.Emission{Version: proxyproto.V2, UniqueID: true}, UniqueID: "theirs",
	}
	st, err := server.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	accepted, got, err := client.AcceptOpen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMalformedOpenIsRefusedAndTheNextOneServed(t *testing.T) {
	client, server, _, _ := join(t, Hello{ID: "a", Instance: "b"}, Welcome{})
	bad, err := server.Session.Open(t.Context(), []byte{metaOpen, tagTunnel, 200})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	good, err := server.Open(t.Context(), Open{Tunnel: PrivateName("db")})
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	st, o, err := client.AcceptOpen(t.Context())
	if err != nil || o.Tunnel != PrivateName("db") {
		t.Fatalf("got %v, %v", o, err)
	}
	defer st.Close()
	var refusal *mux.Refusal
	if err := bad.Result(t.Context()); !errors.As(err, &refusal) || Reason(refusal.Code) != NotAllowed {
		t.Errorf("malformed open: got %v, want a refusal", err)
	}
}

func TestGoAwayIsDelivered(t *testing.T) {
	client, server, _, _ := join(t, Hello{ID: "a", Instance: "b"}, Welcome{})
	want := GoAway{Reason: Shutdown, Detail: "bye", After: time.Second}
	if err := server.GoAway(want); err != nil {
		t.Fatal(err)
	}
	if got := <-client.GoneAway(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRefusedHello(t *testing.T) {
	mc, ms := muxPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, _, err := Accept(t.Context(), ms)
		if err != nil {
			t.Error(err)
			return
		}
		_ = s.GoAway(GoAway{Reason: Fenced, Detail: "another one is here"})
		<-s.Done()
		s.Close(nil)
	}()
	_, _, err := Connect(t.Context(), mc, Hello{ID: "a", Instance: "b"})
	var gone *GoAway
	if !errors.As(err, &gone) || gone.Reason != Fenced {
		t.Errorf("got %v, want a go-away because of fencing", err)
	}
	<-done
}

func TestPeerThatSaysNoHelloIsGoneInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		silent, err := mux.Client(a, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := mux.Server(b, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, _, err = Accept(context.Background(), m)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want a timeout", err)
		}
		if took := time.Since(begun); took > HelloTimeout+100*time.Millisecond {
			t.Errorf("took %s", took)
		}
		<-m.Done()
		silent.Close(nil)
	})
}

func TestServerThatSaysNoWelcomeIsGivenUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		m, err := mux.Client(a, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		server, err := mux.Server(b, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			st, err := server.Accept(context.Background())
			if err == nil {
				_ = st.Confirm()
			}
		}()
		begun := time.Now()
		if _, _, err := Connect(context.Background(), m, Hello{ID: "a", Instance: "b"}); err == nil {
			t.Error("no error")
		}
		if took := time.Since(begun); took > HelloTimeout+100*time.Millisecond {
			t.Errorf("took %s", took)
		}
		server.Close(nil)
	})
}

func TestHelloCheck(t *testing.T) {
	good := Hello{Version: Version, ID: "a", Instance: "b"}
	tests := map[string]struct {
		change func(*Hello)
		want   string
	}{
		"good":               {func(*Hello) {}, ""},
		"another version":    {func(h *Hello) { h.Version = 2 }, "version 2"},
		"no id":              {func(h *Hello) { h.ID = "" }, "printable"},
		"id with a newline":  {func(h *Hello) { h.ID = "a\nb" }, "printable"},
		"id too long":        {func(h *Hello) { h.ID = strings.Repeat("a", 129) }, "printable"},
		"instance of spaces": {func(h *Hello) { h.Instance = "  " }, "printable"},
		"too many offers":    {func(h *Hello) { h.Offers = make([]Offer, MaxOffers+1) }, "offers"},
		"label with control": {func(h *Hello) { h.Labels = map[string]string{"a": "\x1b[31m"} }, "label"},
		"empty label value":  {func(h *Hello) { h.Labels = map[string]string{"a": ""} }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := good
			tt.change(&h)
			err := h.Check()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestParseName(t *testing.T) {
	good := []string{"tcp/1", "tcp/65535", "name/db", "name/3f6c1e1a-0000-4000-8000-000000000000", "http/*", "http/app.example.com", "http/*.dev.example.com/api/v1"}
	for _, s := range good {
		n, err := ParseName(s)
		if err != nil || n.String() != s {
			t.Errorf("%s: got %q, %v", s, n, err)
		}
	}
	bad := []string{
		"", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/022", "tcp/+22", "sctp/53", "name/", "name/a b", "name/a/b", "http/", "http//x",
		"http/App.example.com", "http/app.example.com.", "http/app.example.com:443", "http/app.example.com/api/", "http/a/b?c",
		"http/" + strings.Repeat("a", 2000),
	}
	for _, s := range bad {
		if n, err := ParseName(s); err == nil {
			t.Errorf("%q: got %q, want an error", s, n)
		}
	}
}

func TestUnknownFieldsOfAnOpen(t *testing.T) {
	base := Open{Tunnel: PrivateName("db")}.encode()
	if _, err := decodeOpen(appendField(base, 77, []byte("later"))); err != nil {
		t.Errorf("unknown field: got %v, want it skipped", err)
	}
	if _, err := decodeOpen(appendField(base, 77|tagCritical, nil)); err == nil {
		t.Error("unknown critical field: no error")
	}
}

func TestWishForAPROXYHeader(t *testing.T) {
	name := Open{Tunnel: PrivateName("db")}.encode()
	for _, e := range []proxyproto.Emission{
		{},
		{Version: proxyproto.V1},
		{Version: proxyproto.V2},
		{Version: proxyproto.V2, Authority: true},
		{Version: proxyproto.V2, UniqueID: true},
		{Version: proxyproto.V2, CRC32C: true},
		{Version: proxyproto.V2, FirstDatagram: true},
		{Version: proxyproto.V2, Authority: true, UniqueID: true, CRC32C: true, FirstDatagram: true},
	} {
		o, err := decodeOpen(Open{Tunnel: PrivateName("db"), ProxyProtocol: e}.encode())
		if err != nil || o.ProxyProtocol != e {
			t.Errorf("%+v became %+v, %v", e, o.ProxyProtocol, err)
		}
	}
	later, err := decodeOpen(appendField(name, tagProxy, []byte{2, 0xf2, 'x'}))
	if want := (proxyproto.Emission{Version: proxyproto.V2, UniqueID: true}); err != nil || later.ProxyProtocol != want {
		t.Errorf("bits and bytes of a later version: got %+v, %v, want %+v", later.ProxyProtocol, err, want)
	}
	for _, bad := range []string{"", "\x01", "\x00\x00", "\x03\x00"} { // cut, or a header that nobody here can write
		if o, err := decodeOpen(appendField(name, tagProxy, []byte(bad))); err == nil {
			t.Errorf("%q: got %+v", bad, o.ProxyProtocol)
		}
	}
}

func TestControlMessageClaimsMoreThanItMay(t *testing.T) {
	head := binary.BigEndian.AppendUint32([]byte{msgHello}, maxHello+1)
	if _, _, err := readMessage(bytes.NewReader(head), maxHello); !errors.Is(err, errTooLong) {
		t.Errorf("got %v, want errTooLong", err)
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("http/app.example.com/api")
	f.Add("tcp/22")
	f.Add("name/db")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			return
		}
		if n.String() != s {
			t.Errorf("%q became %q", s, n)
		}
		_, _, _, _ = n.Host(), n.Path(), n.Port(), n.Private()
	})
}

func FuzzOpen(f *testing.F) {
	f.Add(Open{Tunnel: TCPName(22), ID: "x", Source: netip.MustParseAddrPort("1.2.3.4:5"), Host: "h"}.encode())
	f.Add(Open{Tunnel: TCPName(22), ProxyProtocol: proxyproto.Emission{Version: proxyproto.V2, CRC32C: true}, UniqueID: "x"}.encode())
	f.Add([]byte{metaOpen, tagTunnel, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		o, err := decodeOpen(p)
		if err != nil {
			return
		}
		again, err := decodeOpen(o.encode())
		if err != nil || again != o {
			t.Errorf("%+v became %+v, %v", o, again, err)
		}
	})
}

func FuzzControlMessage(f *testing.F) {
	var b bytes.Buffer
	_ = writeMessage(&b, msgHello, Hello{ID: "a", Offers: []Offer{{Tunnel: "tcp/1"}}})
	f.Add(b.Bytes())
	f.Add([]byte{1, 0, 0, 0, 9, '{'})
	f.Fuzz(func(t *testing.T, p []byte) {
		var h Hello
		if err := expect(bytes.NewReader(p), msgHello, maxHello, &h); err == nil {
			_ = h.Check()
		}
		if _, body, err := readMessage(bytes.NewReader(p), maxControl); err == nil && len(body) > maxControl || errors.Is(err, io.ErrNoProgress) {
			t.Errorf("%d bytes, %v", len(body), err)
		}
	})
}
