package mux

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhatHasCompletelyArrivedSurvivesTheSession reads a stream whose end came before the session's.
func TestWhatHasCompletelyArrivedSurvivesTheSession(t *testing.T) {
	client, server := pair(t, Config{})
	a, b := open(t, client, server)
	sent := bytes.Repeat([]byte("x"), 200<<10) // less than a window, so that nothing need be read for it to arrive
	if _, err := a.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	open(t, client, server) // comes after the end, so it has arrived
	client.Close(nil)
	<-server.Done()
	got, err := io.ReadAll(b)
	if err != nil || len(got) != len(sent) {
		t.Errorf("read %d bytes of %d, %v", len(got), len(sent), err)
	}
	_ = b.Reset()
}

// TestALostSessionIsNeverReadAsAnEnd reads what has arrived of a stream that has not ended, after the peer closed the
// connection in an orderly way.
func TestALostSessionIsNeverReadAsAnEnd(t *testing.T) {
	client, server := pair(t, Config{})
	a, b := open(t, client, server)
	if _, err := a.Write(make([]byte, 200<<10)); err != nil {
		t.Fatal(err)
	}
	waiting, silent := open(t, client, server)
	_ = client.conn.Conn.(*net.TCPConn).CloseWrite()
	<-server.Done()
	for what, st := range map[string]*Stream{"half read": b, "nothing to read": silent} {
		if n, err := io.Copy(io.Discard, st); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %d bytes and a clean end, %v", what, n, err)
		}
	}
	if _, err := server.Open(t.Context(), nil); errors.Is(err, io.EOF) {
		t.Errorf("open: an end, %v", err)
	}
	if errors.Is(server.Err(), io.EOF) {
		t.Errorf("session: an end, %v", server.Err())
	}
	_ = waiting.Reset()
}

// TestBudgetIsGivenBack reads a stream after both sides have ended it, behind a long path.
func TestBudgetIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(64 << 20)
		near, far := net.Pipe()
		client, err := Client(slowly(near, 100<<10, 512<<10), Config{})
		if err != nil {
			t.Fatal(err)
		}
		server, err := Server(far, Config{Budget: budget})
		if err != nil {
			t.Fatal(err)
		}
		bulk, sink := open(t, client, server) // makes round trips long
		go func() { _, _ = io.Copy(bulk, endless{}) }()
		go func() { _, _ = io.Copy(io.Discard, sink) }()
		time.Sleep(time.Minute)

		a, b := open(t, client, server)
		if err := b.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write(make([]byte, 200<<10)); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		open(t, client, server) // comes after the end, so it has arrived
		if _, err := io.ReadAll(b); err != nil {
			t.Error(err)
		}
		_ = b.Close()
		client.Close(nil)
		server.Close(nil)
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes of the budget are still in use", used)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return min(len(p), 4<<10), nil }

// TestBulkOnASlowLinkIsNoDeath fills a slow link's deep queue in one direction, so that answers to pings take longer than a
// peer may be silent.
func TestBulkOnASlowLinkIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		client, err := Client(slowly(near, 100<<10, 4<<20), Config{})
		if err != nil {
			t.Fatal(err)
		}
		server, err := Server(far, Config{Budget: NewBudget(64 << 20)})
		if err != nil {
			t.Fatal(err)
		}
		a, b := open(t, client, server)
		go func() { _, _ = io.Copy(a, endless{}) }()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		time.Sleep(10 * time.Minute)
		if client.Err() != nil || server.Err() != nil {
			t.Errorf("client: %v, server: %v", client.Err(), server.Err())
		}
		client.Close(nil)
		server.Close(nil)
	})
}

// slowConn writes through a queue that drains at a rate, as a kernel's buffer and a router's do.
type slowConn struct {
	net.Conn
	queue chan []byte
	done  chan struct{}
	once  sync.Once
	drain sync.WaitGroup
}

const slowPiece = 4 << 10

func slowly(c net.Conn, rate, deep int) *slowConn {
	s := &slowConn{Conn: c, queue: make(chan []byte, deep/slowPiece), done: make(chan struct{})}
	s.drain.Go(func() {
		for {
			select {
			case p := <-s.queue:
				select {
				case <-time.After(time.Duration(len(p)) * time.Second / time.Duration(rate)):
				case <-s.done:
					return
				}
				if _, err := c.Write(p); err != nil {
					return
				}
			case <-s.done:
				return
			}
		}
	})
	return s
}

func (s *slowConn) Write(p []byte) (n int, err error) {
	for piece := range chunks(p) {
		select {
		case s.queue <- bytes.Clone(piece):
			n += len(piece)
		case <-s.done:
			return n, net.ErrClosed
		}
	}
	return n, nil
}

func chunks(p []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			n := min(len(p), slowPiece)
			if !yield(p[:n]) {
				return
			}
			p = p[n:]
		}
	}
}

func (s *slowConn) SetWriteDeadline(time.Time) error { return nil } // the queue is deep enough

func (s *slowConn) Close() error {
	s.once.Do(func() { close(s.done) })
	err := s.Conn.Close()
	s.drain.Wait()
	return err
}

// TestOpenBesideTheEnd opens streams while the session ends; the race detector judges it.
func TestOpenBesideTheEnd(t *testing.T) {
	for range 200 {
		client, server := pair(t, Config{})
		var opening sync.WaitGroup
		for range 4 {
			opening.Go(func() {
				for {
					st, err := server.Open(context.Background(), nil)
					if err != nil {
						return
					}
					_ = st.Reset()
				}
			})
		}
		client.Close(nil)
		opening.Wait()
		server.Close(nil)
	}
}

// TestCountOfStreamsBesideAHostilePeer has a peer that opens too much and reads nothing.
func TestCountOfStreamsBesideAHostilePeer(t *testing.T) {
	a, b := net.Pipe()
	server, err := Server(a, Config{MaxStreams: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close(nil)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for id := uint32(1); ; id += 2 { // window updates that open a stream, in the framing below ours
			frame := binary.BigEndian.AppendUint32([]byte{0, 1, 0, 1}, id)
			if _, err := b.Write(append(frame, 0, 0, 0, 0)); err != nil {
				return
			}
			written <- struct{}{}
		}
	}()
	for stuck := false; !stuck; {
		select {
		case <-written:
		case <-time.After(500 * time.Millisecond):
			stuck = true
		}
	}
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		server.Streams()
	}()
	select {
	case <-counted:
	case <-time.After(time.Second):
		t.Error("the count of streams waits for the peer")
	}
	b.Close()
	<-written
	<-counted
}
