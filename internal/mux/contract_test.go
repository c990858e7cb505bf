package mux_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"culvert/internal/mux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// linked are both ends of a session over a cable, whose near end is the client's.
func linked(t testing.TB, cfg mux.Config, how cableConfig) (client, server *mux.Session, link *cableEnd) {
	t.Helper()
	near, far := newCable(how)
	client, err := mux.Client(near, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if server, err = mux.Server(far, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close(nil)
		server.Close(nil)
	})
	return client, server, near
}

// TestWhatHasCompletelyArrivedSurvivesTheSession reads a stream whose end came before the session's.
func TestWhatHasCompletelyArrivedSurvivesTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := linked(t, mux.Config{}, cableConfig{})
		a, b := open(t, client, server)
		sent := bytes.Repeat([]byte("x"), 200<<10) // less than a window, so that nothing need be read for it to arrive
		if _, err := a.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		client.Close(nil)
		<-server.Done()
		got, err := io.ReadAll(b)
		if err != nil || len(got) != len(sent) {
			t.Errorf("read %d bytes of %d, %v", len(got), len(sent), err)
		}
		_ = b.Reset()
	})
}

// TestALostSessionIsNeverReadAsAnEnd reads what has arrived of a stream that has not ended, after an orderly end of the
// connection, and after the session's.
func TestALostSessionIsNeverReadAsAnEnd(t *testing.T) {
	ends := map[string]func(*mux.Session, *cableEnd){
		"the link ends":      func(_ *mux.Session, link *cableEnd) { link.Break(ended) },
		"the session closes": func(client *mux.Session, _ *cableEnd) { client.Close(nil) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server, link := linked(t, mux.Config{Resume: -1}, cableConfig{})
				a, b := open(t, client, server)
				if _, err := a.Write(make([]byte, 200<<10)); err != nil {
					t.Fatal(err)
				}
				undecided, err := client.Open(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				<-undecided.Received()
				_, silent := open(t, server, client)
				end(client, link)
				<-server.Done()
				for what, st := range map[string]*mux.Stream{"half read": b, "nothing to read": silent, "undecided": undecided} {
					if n, err := io.Copy(io.Discard, st); err == nil || errors.Is(err, io.EOF) {
						t.Errorf("%s: %d bytes and a clean end, %v", what, n, err)
					}
				}
				if err := undecided.Result(t.Context()); !errors.Is(err, mux.ErrLost) {
					t.Errorf("result of an open stream: got %v, want ErrLost", err)
				}
				if _, err := server.Open(t.Context(), nil); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("open: got %v, want an error that is no end", err)
				}
				if _, err := server.Accept(t.Context()); err == nil {
					t.Error("accept on a lost session: no error")
				}
				if err := server.Err(); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("session: got %v, want an error that is no end", err)
				}
			})
		})
	}
}

// TestCloseBeforeTheEndIsNeverReadAsAnEnd ends a stream in the middle.
func TestCloseBeforeTheEndIsNeverReadAsAnEnd(t *testing.T) {
	for name, end := range map[string]func(*mux.Stream) error{"close": (*mux.Stream).Close, "reset": (*mux.Stream).Reset} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server, _ := linked(t, mux.Config{}, cableConfig{})
				a, b := open(t, client, server)
				if _, err := a.Write([]byte("half of it")); err != nil {
					t.Fatal(err)
				}
				if err := end(a); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(b); err == nil {
					t.Error("the peer read a clean end")
				}
				_ = b.Reset()
			})
		})
	}
}

// TestBulkOnASlowLinkIsNoDeath fills a slow link's deep queue in one direction, so that answers to pings take longer than a
// peer may be silent.
func TestBulkOnASlowLinkIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newCable(cableConfig{room: 4 << 20})
		client, err := mux.Client(slowConn{near, 100 << 10}, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		server, err := mux.Server(slowConn{far, 100 << 10}, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		a, b := open(t, client, server)
		go func() { _, _ = a.Pull(endless{}, nil) }()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		time.Sleep(10 * time.Minute)
		if client.Err() != nil || server.Err() != nil || client.Live() != 1 {
			t.Errorf("client: %v, server: %v", client.Err(), server.Err())
		}
		if n := client.Stats().Pauses; n != 0 {
			t.Errorf("%d pauses", n)
		}
		client.Close(nil)
		server.Close(nil)
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return min(len(p), 4<<10), nil }

// slowConn reads so many bytes a second.
type slowConn struct {
	net.Conn
	rate int
}

func (s slowConn) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p[:min(len(p), 4<<10)])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(s.rate))
	return n, err
}

// TestOpenBesideTheEnd opens streams while the session ends; the race detector judges it.
func TestOpenBesideTheEnd(t *testing.T) {
	for range 200 {
		client, server, _ := linked(t, mux.Config{}, cableConfig{})
		var opening sync.WaitGroup
		for range 4 {
			opening.Go(func() {
				for {
					st, err := server.Open(context.Background(), nil)
					var refusal *mux.Refusal
					switch {
					case errors.As(err, &refusal): // more than the client takes
					case err != nil:
						return
					default:
						_ = st.Reset()
					}
				}
			})
		}
		client.Close(nil)
		opening.Wait()
		server.Close(nil)
	}
}

func TestStreamsBeyondThePeersNumberAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := linked(t, mux.Config{MaxStreams: 2}, cableConfig{})
		first, _ := open(t, client, server)
		open(t, client, server)
		_, err := client.Open(t.Context(), nil)
		var refusal *mux.Refusal
		if !errors.As(err, &refusal) || refusal.Code != mux.TooManyStreams {
			t.Errorf("third of two streams: got %v, want a refusal", err)
		}
		_ = first.Reset()
		synctest.Wait()
		open(t, client, server)
		if err := errors.Join(client.Err(), server.Err()); err != nil {
			t.Errorf("the session ended: %v", err)
		}
	})
}

func TestMetadataTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _, _ := linked(t, mux.Config{}, cableConfig{})
		if _, err := client.Open(t.Context(), make([]byte, 5000)); err == nil {
			t.Error("no error")
		}
	})
}

func TestOpenHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _, _ := linked(t, mux.Config{}, cableConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := client.Open(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

func TestRefusalsAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := linked(t, mux.Config{}, cableConfig{})
		a, err := server.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := client.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = b.Refuse(7, strings.Repeat("why ", 1000))
		var refusal *mux.Refusal
		if err := a.Result(t.Context()); !errors.As(err, &refusal) || refusal.Code != 7 || len(refusal.Detail) != 1024 {
			t.Errorf("result: got %v, want a refusal with code 7 and a detail of 1,024 bytes", err)
		}
	})
}

// TestEarlyDataIsBounded writes before the peer's mux has the open: as much as is always granted, and no more.
func TestEarlyDataIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := dialTo(t, mux.Config{}, newSession())
		st, err := s.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = st.Write(make([]byte, 100<<10)) }()
		synctest.Wait()
		p.expect(tOpen, 2)
		got := 0
		for got < 32<<10 {
			got += len(p.expect(tData, 2).body) - 8
		}
		if got != 32<<10 {
			t.Errorf("%d bytes before RECEIVED, want 32 KiB", got)
		}
		p.quiet(100 * time.Millisecond)
		p.send(received(2, 40<<10))
		if n := len(p.expect(tData, 2).body) - 8; n != 8<<10 {
			t.Errorf("%d bytes behind RECEIVED, want 8 KiB", n)
		}
		_ = st.Reset()
	})
}

// TestAStalledReaderIsResetWhenMemoryIsWanted leaves bytes unread while the budget is short: for 60 s, and not for less.
func TestAStalledReaderIsResetWhenMemoryIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := mux.NewBudget(100 << 10)
		client, server, _ := linked(t, mux.Config{Budget: budget}, cableConfig{})
		a, stalled := open(t, client, server)
		_, idle := open(t, client, server)
		if _, err := a.Write([]byte("nobody reads this")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Second)
		if _, err := a.Write([]byte("x")); err != nil {
			t.Errorf("reset after 55 s: %v", err)
		}
		time.Sleep(15 * time.Second)
		if _, err := a.Write([]byte("x")); !errors.Is(err, mux.ErrReset) {
			t.Errorf("write after 70 s: got %v, want ErrReset", err)
		}
		if _, err := stalled.Read(make([]byte, 1)); err == nil {
			t.Error("the stalled side reads on")
		}
		if _, err := idle.Write([]byte("x")); err != nil {
			t.Errorf("the idle stream was reset: %v", err)
		}
	})
}
