package tunnel

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestFinishWaitsUntilThePeerHasEverything(t *testing.T) {
	client, server, _, _ := join(t, Hello{ID: "a", Instance: "b"}, Welcome{})
	st, err := server.Open(t.Context(), Open{Tunnel: PrivateName("db")})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int64, 1)
	go func() {
		n, err := io.Copy(io.Discard, st)
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	accepted, _, err := client.AcceptOpen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := accepted.Confirm(); err != nil {
		t.Fatal(err)
	}
	const size = 5 << 20
	if _, err := accepted.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := accepted.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	client.Finish(t.Context())
	if n := <-got; n != size {
		t.Errorf("got %d bytes, want %d", n, size)
	}
	if !errors.Is(server.Err(), ErrFinished) {
		t.Errorf("the server's session ended by %v, want ErrFinished", server.Err())
	}
	_ = st.Reset()
}

func TestFinishGivesUpOnAPeerThatDoesNotClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mc, ms := muxPair(t)
		go func() { // a peer that answers the hello and hears no more
			st, err := acceptControl(t.Context(), ms)
			if err != nil {
				return
			}
			var h Hello
			_ = expect(st, msgHello, maxHello, &h)
			_ = writeMessage(st, msgWelcome, Welcome{})
		}()
		s, _, err := Connect(t.Context(), mc, Hello{ID: "a", Instance: "b"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begun := time.Now()
		s.Finish(ctx)
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestOnlyTheFirstGoAwayIsHeard(t *testing.T) {
	client, server, _, _ := join(t, Hello{ID: "a", Instance: "b"}, Welcome{})
	for _, reason := range []GoAwayReason{Shutdown, Revoked, Fenced} {
		if err := client.GoAway(GoAway{Reason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	if g := <-server.GoneAway(); g.Reason != Shutdown {
		t.Errorf("got %s, want the first", g.Reason)
	}
	client.Finish(t.Context())
	<-server.Done()
	select {
	case g := <-server.GoneAway():
		t.Errorf("got %s too", g.Reason)
	default:
	}
}
