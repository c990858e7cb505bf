package mux

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-yamux/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair joins two sessions over TCP.
func pair(t *testing.T, cfg Config) (client, server *Session) {
	t.Helper()
	a, b := tcpPair(t)
	client, err := Client(a, cfg)
	if err != nil {
		t.Fatal(err)
	}
	server, err = Server(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close(nil)
		server.Close(nil)
	})
	return client, server
}

func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ln.Accept()
		accepted <- c
	}()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b = <-accepted; b == nil {
		t.Fatal("not accepted")
	}
	return a, b
}

// open opens a stream and has the other side confirm it.
func open(t *testing.T, from, to *Session) (opened, accepted *Stream) {
	t.Helper()
	opened, err := from.Open(t.Context(), []byte("meta"))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = to.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := string(accepted.Meta()); got != "meta" {
		t.Fatalf("metadata: got %q, want %q", got, "meta")
	}
	<-opened.Received()
	if err := accepted.Confirm(); err != nil {
		t.Fatal(err)
	}
	if err := opened.Result(t.Context()); err != nil {
		t.Fatalf("result: got %v, want success", err)
	}
	return opened, accepted
}

func TestStreamCarriesBothDirectionsAndHalfCloses(t *testing.T) {
	client, server := pair(t, Config{})
	for name, ends := range map[string][2]*Session{"client opens": {client, server}, "server opens": {server, client}} {
		t.Run(name, func(t *testing.T) {
			a, b := open(t, ends[0], ends[1])
			there, back := make([]byte, 3<<20), make([]byte, 1<<20)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(there)
			_, _ = rand.NewChaCha8([32]byte{2}).Read(back)
			go func() { // answers only after it has seen the end of the request
				got, err := io.ReadAll(b)
				if err != nil || sha256.Sum256(got) != sha256.Sum256(there) {
					t.Errorf("acceptor read %d bytes, err %v", len(got), err)
				}
				_, _ = b.Write(back)
				_ = b.CloseWrite()
			}()
			if _, err := a.Write(there); err != nil {
				t.Fatal(err)
			}
			if err := a.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(a)
			if err != nil || !bytes.Equal(got, back) {
				t.Fatalf("opener read %d bytes, err %v; want %d", len(got), err, len(back))
			}
			if err := errors.Join(a.Close(), b.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestOpenerMayWriteBeforeTheResult(t *testing.T) {
	client, server := pair(t, Config{})
	a, err := server.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := client.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-a.Received()
	if _, err := a.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	if err := b.Confirm(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(b, got); err != nil || string(got) != "early" {
		t.Fatalf("got %q, %v", got, err)
	}
	_, _ = a.Reset(), b.Reset()
}

func TestRefusalReachesTheOpener(t *testing.T) {
	client, server := pair(t, Config{})
	a, err := server.Open(t.Context(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := client.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Refuse(7, strings.Repeat("why ", 1000)); err != nil {
		t.Fatal(err)
	}
	var refusal *Refusal
	if err := a.Result(t.Context()); !errors.As(err, &refusal) || refusal.Code != 7 || len(refusal.Detail) != maxDetail {
		t.Fatalf("result: got %v, want a refusal with code 7 and a detail cut at %d", err, maxDetail)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.As(err, &refusal) {
		t.Fatalf("read of a refused stream: got %v, want the refusal", err)
	}
	_ = a.Reset()
}

func TestCloseBeforeTheEndIsNeverReadAsAnEnd(t *testing.T) {
	client, server := pair(t, Config{})
	for name, end := range map[string]func(*Stream) error{"close": (*Stream).Close, "reset": (*Stream).Reset} {
		t.Run(name, func(t *testing.T) {
			a, b := open(t, client, server)
			if _, err := a.Write([]byte("half of it")); err != nil {
				t.Fatal(err)
			}
			if err := end(a); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(b); err == nil {
				t.Error("the peer read a clean EOF")
			}
			_ = b.Reset()
		})
	}
}

func TestSessionLossEndsOpensAndStreams(t *testing.T) {
	client, server := pair(t, Config{})
	undecided, err := server.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	<-undecided.Received()
	a, b := open(t, client, server)
	_ = client.conn.Conn.Close() // the connection is cut, nobody says goodbye
	if err := undecided.Result(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("result of an open stream: got %v, want ErrLost", err)
	}
	for end, st := range map[string]*Stream{"opener": a, "acceptor": b} {
		if _, err := st.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("%s's read: got %v, want an error other than EOF", end, err)
		}
	}
	if _, err := server.Accept(t.Context()); err == nil {
		t.Error("accept on a lost session: no error")
	}
	if _, err := server.Open(t.Context(), nil); err == nil {
		t.Error("open on a lost session: no error")
	}
	if server.Err() == nil {
		t.Error("no error of the session")
	}
}

func TestSilentPeerIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		go func() { _, _ = io.Copy(io.Discard, b) }() // takes everything, says nothing
		s, err := Server(a, Config{})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		<-s.Done()
		if took := time.Since(begun); took < 7*time.Second || took > 9*time.Second {
			t.Errorf("dead after %s, want 7 to 9 s", took)
		}
		if !errors.Is(s.Err(), ErrDead) {
			t.Errorf("error: got %v, want ErrDead", s.Err())
		}
		s.Close(nil)
	})
}

func TestIdleSessionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		client, err := Client(a, Config{})
		if err != nil {
			t.Fatal(err)
		}
		server, err := Server(b, Config{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := errors.Join(client.Err(), server.Err()); err != nil {
			t.Errorf("after an idle hour: %v", err)
		}
		client.Close(nil)
		server.Close(nil)
	})
}

// TestPeerThatKeepsItsMetadata uses the framing below ours, as only a hostile peer does.
func TestPeerThatKeepsItsMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		server, err := Server(a, Config{})
		if err != nil {
			t.Fatal(err)
		}
		peer, err := yamux.Client(b, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		slow, err := peer.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		good, err := peer.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := good.Write([]byte{0, 1, 'x'}); err != nil {
			t.Fatal(err)
		}
		st, err := server.Accept(t.Context())
		if err != nil || string(st.Meta()) != "x" {
			t.Fatalf("accept beside a slow one: %v", err)
		}
		begun := time.Now()
		if _, err := slow.Read(make([]byte, 1)); !errors.Is(err, yamux.ErrStreamReset) {
			t.Errorf("slow open: got %v, want a reset", err)
		}
		if took := time.Since(begun); took > openTimeout+time.Second {
			t.Errorf("slow open was kept for %s", took)
		}
		server.Close(nil)
		_ = peer.Close()
	})
}

func TestMaxStreams(t *testing.T) {
	client, server := pair(t, Config{MaxStreams: 2})
	first, _ := open(t, client, server)
	open(t, client, server)
	third, err := client.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Result(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("third of two streams: got %v, want ErrLost", err)
	}
	if first.session.Err() != nil {
		t.Errorf("the session ended: %v", first.session.Err())
	}
}

func TestMetadataTooLong(t *testing.T) {
	client, _ := pair(t, Config{})
	if _, err := client.Open(t.Context(), make([]byte, 5000)); err == nil {
		t.Error("no error")
	}
}

func TestOpenHonoursItsContext(t *testing.T) {
	client, _ := pair(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Open(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestBudget(t *testing.T) {
	b := NewBudget(1 << 20)
	one, _ := b.span()
	two, _ := b.span()
	if err := one.ReserveMemory(256<<10, firstWindow); err != nil {
		t.Fatalf("first window: %v", err)
	}
	if err := one.ReserveMemory(1<<20, 128); err != nil {
		t.Fatalf("growth within the budget: %v", err)
	}
	if err := two.ReserveMemory(1, 128); err == nil {
		t.Error("growth beyond the budget was granted")
	}
	if err := two.ReserveMemory(256<<10, firstWindow); err != nil {
		t.Errorf("first window beyond the budget: %v", err)
	}
	one.Done()
	two.Done()
	if b.Used() != 0 {
		t.Errorf("%d bytes still in use at the end", b.Used())
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte{1, 2, 0, 0, 0})
	f.Add([]byte{1, 2, 5, 0, 3, 'w', 'h', 'y'})
	f.Add([]byte{1, 2, 5, 255, 255})
	f.Fuzz(func(t *testing.T, p []byte) {
		r := bytes.NewReader(p)
		if readReceived(r) != nil {
			return
		}
		refusal, err := readResult(r)
		if refusal != nil && (err != nil || refusal.Code == 0 || len(refusal.Detail) > maxDetail) {
			t.Errorf("refusal %v with error %v", refusal, err)
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte{0, 1, 'x'})
	f.Add([]byte{255, 255, 'x'})
	f.Fuzz(func(t *testing.T, p []byte) {
		meta, err := readMeta(bytes.NewReader(p), 4096)
		if err == nil && (len(meta) > 4096 || !bytes.Equal(meta, p[2:2+len(meta)])) {
			t.Errorf("read %q of %q", meta, p)
		}
	})
}
