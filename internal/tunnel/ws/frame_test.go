package ws

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Another implementation of RFC 6455 is the oracle for both ends.

func TestAnotherClientUnderstandsOurServer(t *testing.T) {
	d := serve(t, echo(t))
	transport := &http.Transport{TLSClientConfig: d.TLS}
	defer transport.CloseIdleConnections()
	other, _, err := websocket.Dial(t.Context(), d.URL.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, HTTPHeader: d.Header, Subprotocols: []string{Protocol},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer other.CloseNow()
	other.SetReadLimit(-1)
	sent, got := payload(1<<20), new(bytes.Buffer)
	go fragments(t, other, sent)
	for got.Len() < len(sent) {
		kind, p, err := other.Read(t.Context())
		if err != nil || kind != websocket.MessageBinary {
			t.Fatalf("after %d bytes: %v, %v", got.Len(), kind, err)
		}
		got.Write(p)
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Error("the echo differs")
	}
	ctx, cancel := context.WithTimeout(other.CloseRead(t.Context()), 5*time.Second)
	defer cancel()
	if err := other.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func TestOurClientUnderstandsAnotherServer(t *testing.T) {
	ended := make(chan error, 1)
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		other, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Protocol}})
		if err != nil {
			ended <- err
			return
		}
		other.SetReadLimit(-1)
		var all []byte
		for len(all) < 1<<20 && err == nil {
			var p []byte
			_, p, err = other.Read(r.Context())
			all = append(all, p...)
		}
		fragments(t, other, all)
		ended <- errors.Join(err, other.Close(websocket.StatusNormalClosure, "bye"))
	})
	c, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent := payload(1 << 20)
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d bytes, %v; want %d and a clean end", len(got), err, len(sent))
	}
	c.Close()
	<-ended // its closing handshake gets no answer, which is what we do
}

func payload(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(p)
	return p
}

// fragments sends p as messages of several frames.
func fragments(t *testing.T, c *websocket.Conn, p []byte) {
	for len(p) > 0 {
		w, err := c.Writer(context.Background(), websocket.MessageBinary)
		if err != nil {
			t.Error(err)
			return
		}
		for range 3 {
			n := min(len(p), 1+rand.IntN(100_000))
			_, _ = w.Write(p[:n])
			p = p[n:]
		}
		_ = w.Close()
	}
}

func TestFramesThatBreakTheProtocol(t *testing.T) {
	tests := map[string][]byte{
		"text":                     {0x81, 0x81, 0, 0, 0, 0, 'x'},
		"not masked by a client":   {0x82, 0x01, 'x'},
		"reserved bits":            {0xC2, 0x81, 0, 0, 0, 0, 'x'},
		"length of 2^63":           {0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"long ping":                {0x89, 0xFE, 0, 126, 0, 0, 0, 0},
		"ping in pieces":           {0x09, 0x80, 0, 0, 0, 0},
		"opcode of another future": {0x83, 0x80, 0, 0, 0, 0},
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := fed(in, false).Read(make([]byte, 8)); !errors.Is(err, errProtocol) {
				t.Errorf("got %v, want a protocol error", err)
			}
		})
	}
	if _, err := fed([]byte{0x82, 0x81, 0, 0, 0, 0, 'x'}, true).Read(make([]byte, 8)); !errors.Is(err, errProtocol) {
		t.Errorf("masked by a server: got %v, want a protocol error", err)
	}
}

func TestEndWithoutACloseFrameIsNoCleanEnd(t *testing.T) {
	whole := []byte{0x82, 0x02, 'h', 'i'}
	for cut := 1; cut < len(whole); cut++ {
		if _, err := io.ReadAll(fed(whole[:cut], true)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: got %v", cut, err)
		}
	}
	if got, err := io.ReadAll(fed(append(whole, 0x88, 0x00), true)); err != nil || string(got) != "hi" {
		t.Errorf("with a close frame: got %q, %v", got, err)
	}
}

// fed is a connection that reads what it is given and whose writes go nowhere.
func fed(in []byte, client bool) *conn {
	return &conn{Conn: nowhere{}, in: bytes.NewReader(in), client: client}
}

type nowhere struct{ net.Conn }

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// loop gives back what is written to it.
type loop struct {
	net.Conn
	bytes.Buffer
}

func (l *loop) Read(p []byte) (int, error)  { return l.Buffer.Read(p) }
func (l *loop) Write(p []byte) (int, error) { return l.Buffer.Write(p) }

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), 3, true)
	f.Add(payload(70_000), 1000, false)
	f.Add([]byte{}, 1, true)
	f.Fuzz(func(t *testing.T, p []byte, chunk int, client bool) {
		l := &loop{}
		writer := &conn{Conn: l, client: client}
		reader := &conn{in: l, client: !client}
		size := 1 + int(uint(chunk)%100_000)
		for rest := p; len(rest) > 0; {
			n := min(len(rest), size)
			if _, err := writer.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got := make([]byte, len(p))
		if _, err := io.ReadFull(reader, got); err != nil || !bytes.Equal(got, p) {
			t.Errorf("%d bytes in pieces of %d came back different, err %v", len(p), size, err)
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{0x82, 0x02, 'h', 'i', 0x89, 0x01, 'p', 0x88, 0x00}, true)
	f.Add([]byte{0x82, 0x82, 1, 2, 3, 4, 'h', 'i'}, false)
	f.Fuzz(func(t *testing.T, in []byte, client bool) {
		got, err := io.ReadAll(fed(in, client))
		if len(got) > len(in) {
			t.Errorf("%d bytes out of %d, err %v", len(got), len(in), err)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for name, client := range map[string]bool{"masked": true, "plain": false} {
		b.Run(name, func(b *testing.B) {
			c, p := fed(nil, client), payload(32<<10)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
