package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
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
			if _, err := fed(in, false, 100).Read(make([]byte, 8)); !errors.Is(err, errProtocol) {
				t.Errorf("got %v, want a protocol error", err)
			}
		})
	}
	if _, err := fed([]byte{0x82, 0x81, 0, 0, 0, 0, 'x'}, true, 100).Read(make([]byte, 8)); !errors.Is(err, errProtocol) {
		t.Errorf("masked by a server: got %v, want a protocol error", err)
	}
}

func TestEndWithoutACloseFrameIsNoCleanEnd(t *testing.T) {
	whole := []byte{0x82, 0x02, 'h', 'i'}
	for cut := 1; cut < len(whole); cut++ {
		if _, err := io.ReadAll(fed(whole[:cut], true, 100)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: got %v", cut, err)
		}
	}
	if got, err := io.ReadAll(fed(append(whole, 0x88, 0x00), true, 100)); err != nil || string(got) != "hi" {
		t.Errorf("with a close frame: got %q, %v", got, err)
	}
}

// fed is a connection that reads what it is given, at most step bytes at a time, and whose writes go nowhere.
func fed(in []byte, client bool, step int) *conn {
	return newConn(nowhere{in: bytes.NewReader(in), step: step}, nil, client)
}

type nowhere struct {
	net.Conn
	in   io.Reader
	step int
}

func (n nowhere) Read(p []byte) (int, error) { return n.in.Read(p[:min(len(p), n.step)]) }

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// loop gives back what is written to it.
type loop struct {
	net.Conn
	bytes.Buffer
}

func (l *loop) Read(p []byte) (int, error)  { return l.Buffer.Read(p) }
func (l *loop) Write(p []byte) (int, error) { return l.Buffer.Write(p) }

func TestReadsOfEverySize(t *testing.T) {
	// Frames of every form of length, a ping, an empty frame and a close frame, for reads and wires that cut anywhere.
	sizes := []int{1, 0, 125, 126, 1000, 0xffff, 0x10000, 130 << 10, 3}
	for _, client := range []bool{true, false} {
		var wire, want []byte
		for i, n := range sizes {
			p := payload(n)
			want = append(want, p...)
			wire = append(wire, frameUp(append(make([]byte, maxHeader), p...), opBinary, !client)...)
			if i%2 == 0 {
				wire = append(wire, frameUp(append(make([]byte, maxHeader), "ping"...), opPing, !client)...)
			}
		}
		wire = append(wire, frameUp(append(make([]byte, maxHeader), 3, 0xe8), opClose, !client)...)
		wire = append(wire, "what follows a close frame"...)
		for _, step := range []int{1, 2, 3, 7, 100, 16 << 10, 1 << 20} {
			for _, size := range []int{1, 2, 13, 512, 4096, 64 << 10, 1 << 20} {
				c := fed(wire, client, step)
				got, p := make([]byte, 0, len(want)), make([]byte, size)
				var err error
				for err == nil {
					var n int
					if n, err = c.Read(p); n == 0 && err == nil {
						t.Fatal("read gave 0 bytes and no error")
					}
					got = append(got, p[:n]...)
				}
				if err != io.EOF || !bytes.Equal(got, want) {
					t.Fatalf("client %v, reads of %d from a wire of %d: %d bytes of %d, err %v", client, size, step, len(got), len(want), err)
				}
				if _, err := c.Read(p); err != io.EOF {
					t.Errorf("after the end: got %v", err)
				}
			}
		}
	}
}

func TestBytesBeforeAnErrorAreRead(t *testing.T) {
	c := fed([]byte{0x82, 0x02, 'h', 'i', 0x81, 0x01, 'x'}, true, 100)
	p := make([]byte, 100)
	if n, err := c.Read(p); n != 2 || err != nil {
		t.Errorf("got %d, %v, want the two bytes", n, err)
	}
	for range 2 {
		if _, err := c.Read(p); !errors.Is(err, errProtocol) {
			t.Errorf("got %v, want a protocol error", err)
		}
	}
}

func TestReadGoesOnAfterADeadline(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := newConn(near, nil, true)
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := far.Write([]byte{0x82, 0x05, 'h'}) // the header and a part
		sent <- err
	}()
	p := make([]byte, 10)
	if n, err := c.Read(p); err != nil || n != 1 {
		t.Fatalf("got %d, %v", n, err)
	}
	<-sent
	_ = c.SetReadDeadline(time.Unix(1, 0))
	if _, err := c.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, want the deadline", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	go func() { _, _ = far.Write([]byte("ello")) }()
	if n, err := io.ReadFull(c, p[:4]); err != nil || string(p[:n]) != "ello" {
		t.Errorf("got %q, %v", p[:n], err)
	}
}

func TestWriteOwnedFramesInPlace(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 0xffff, 0x10000, 128<<10 + 500} {
		for _, client := range []bool{true, false} {
			l, p := &loop{}, payload(n)
			c := newConn(l, nil, client)
			if err := c.WriteOwned(append(make([]byte, c.Headroom()), p...)); err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				if l.Len() > n+maxHeader || l.Bytes()[0] != finBit|opBinary {
					t.Errorf("%d bytes: not one frame: %d on the wire", n, l.Len())
				}
			}
			got := make([]byte, n)
			if _, err := io.ReadFull(newConn(l, nil, !client), got); err != nil || !bytes.Equal(got, p) {
				t.Errorf("%d bytes came back different, err %v", n, err)
			}
		}
	}
}

func TestThePeersLastPingIsAnswered(t *testing.T) {
	l := &loop{}
	c := newConn(l, nil, true)
	c.writing.Lock() // someone is writing
	for _, word := range []string{"one", "two"} {
		if _, err := c.unframe(frameUp(append(make([]byte, maxHeader), word...), opPing, false)); err != nil {
			t.Fatal(err)
		}
	}
	if l.Len() != 0 {
		t.Error("a reader wrote while someone else was writing")
	}
	c.writing.Unlock()
	if err := c.WriteOwned(append(make([]byte, maxHeader), "data"...)); err != nil {
		t.Fatal(err)
	}
	var h header
	opcodes, words := []byte{}, []string{}
	for rest := l.Bytes(); len(rest) > 0; {
		rest, _ = h.take(rest)
		f, err := h.frame()
		if err != nil {
			t.Fatal(err)
		}
		applyMask(rest[:f.length], f.key, 0)
		opcodes, words = append(opcodes, f.opcode), append(words, string(rest[:f.length]))
		rest, h.has = rest[f.length:], 0
	}
	if diff := cmp.Diff([]byte{opBinary, opPong}, opcodes) + cmp.Diff([]string{"data", "two"}, words); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), 3, 100, true)
	f.Add(payload(70_000), 1000, 1, false)
	f.Add([]byte{}, 1, 1, true)
	f.Fuzz(func(t *testing.T, p []byte, chunk, cut int, client bool) {
		l := &loop{}
		writer := newConn(l, nil, client)
		reader := newConn(l, nil, !client)
		size, read := 1+int(uint(chunk)%100_000), make([]byte, 1+int(uint(cut)%100_000))
		for rest, owned := p, client; len(rest) > 0; owned = !owned {
			n := min(len(rest), size)
			var err error
			if owned {
				err = writer.WriteOwned(append(make([]byte, maxHeader), rest[:n]...))
			} else {
				_, err = writer.Write(rest[:n])
			}
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got := make([]byte, 0, len(p))
		for len(got) < len(p) {
			n, err := reader.Read(read)
			if err != nil || n == 0 {
				t.Fatalf("read gave %d, %v after %d bytes of %d", n, err, len(got), len(p))
			}
			got = append(got, read[:n]...)
		}
		if !bytes.Equal(got, p) {
			t.Errorf("%d bytes in pieces of %d, read by %d, came back different", len(p), size, len(read))
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{0x82, 0x02, 'h', 'i', 0x89, 0x01, 'p', 0x88, 0x00}, true)
	f.Add([]byte{0x82, 0x82, 1, 2, 3, 4, 'h', 'i'}, false)
	f.Fuzz(func(t *testing.T, in []byte, client bool) {
		got, err := io.ReadAll(fed(in, client, 1+len(in)/3))
		if len(got) > len(in) {
			t.Errorf("%d bytes out of %d, err %v", len(got), len(in), err)
		}
	})
}

func sides() map[string]bool { return map[string]bool{"masked": true, "plain": false} }

func BenchmarkWrite(b *testing.B) {
	for name, client := range sides() {
		b.Run(name, func(b *testing.B) {
			c, p := fed(nil, client, 1), payload(64<<10)
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

func BenchmarkWriteOwned(b *testing.B) {
	for name, client := range sides() {
		for _, size := range []int{64, 1 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				c, buf := fed(nil, client, 1), payload(maxHeader+size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := c.WriteOwned(buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// again gives the same bytes for ever.
type again struct {
	p  []byte
	at int
}

func (a *again) Read(p []byte) (int, error) {
	n := copy(p, a.p[a.at:])
	if a.at += n; a.at == len(a.p) {
		a.at = 0
	}
	return n, nil
}

func BenchmarkRead(b *testing.B) {
	for name, masked := range sides() {
		for _, size := range []int{64, 1 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				wire := frameUp(make([]byte, maxHeader+size), opBinary, masked)
				c, p := newConn(nowhere{in: &again{p: wire}, step: 16 << 10}, nil, !masked), make([]byte, 64<<10) // TLS gives 16 KiB at most
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					for left := size; left > 0; {
						n, err := c.Read(p[:min(left+maxHeader, len(p))])
						if err != nil {
							b.Fatal(err)
						}
						left -= n
					}
				}
			})
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for name, client := range sides() {
		buf, p := make([]byte, maxHeader+4096), make([]byte, 512)
		l := &loop{}
		writer, reader := newConn(l, nil, client), newConn(l, nil, !client)
		l.Grow(10_000)
		if n := testing.AllocsPerRun(100, func() {
			if err := writer.WriteOwned(buf); err != nil {
				t.Fatal(err)
			}
			for left := 4096; left > 0; {
				n, err := reader.Read(p)
				if err != nil {
					t.Fatal(err)
				}
				left -= n
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
	}
}
