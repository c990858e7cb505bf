package control

import (
	"context"
	"testing"
	"time"

	"culvert/internal/tunnel"
)

// A server that another process takes the place of waits for its clients to be there, and gives them visitors until then.
func TestAwaitMoved(t *testing.T) {
	b := serve(t, nil)
	moves, _ := b.mustConnect(t, shared, hello("a", 1, 1, ssh.String()))
	ends, _ := b.mustConnect(t, shared, hello("b", 1, 1, ssh.String()))
	_, lost := b.cuttable(t, shared, hello("c", 1, 1, telnet.String()))
	b.plane.await(t, ssh, 2)
	b.server.GoAway(t.Context())
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		b.server.AwaitMoved(t.Context())
	}()
	if err := moves.GoAway(tunnel.GoAway{Reason: tunnel.Moved}); err != nil {
		t.Fatal(err)
	}
	ends.Close(nil)
	b.plane.await(t, ssh, 1) // of the one that has moved
	select {
	case <-waited:
		t.Error("did not wait for the third client")
	case <-time.After(3 * movedTick):
	}
	_ = lost.Close()
	<-waited
	if !usable(b.plane.await(t, ssh, 1)) {
		t.Error("the client that has moved is not given visitors any more")
	}
}

func TestAwaitMovedEnds(t *testing.T) {
	b := serve(t, nil)
	b.mustConnect(t, shared, hello("a", 1, 1, ssh.String()))
	b.server.GoAway(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), 2*movedTick)
	defer cancel()
	b.server.AwaitMoved(ctx) // of an older version, which stays to the end
}

// Only a server that goes down is told so; to any other it means that the client goes.
func TestMovedAwayFromAServerThatStays(t *testing.T) {
	b := serve(t, nil)
	s, _ := b.mustConnect(t, shared, hello("a", 1, 1, ssh.String()))
	b.plane.await(t, ssh, 1)
	if err := s.GoAway(tunnel.GoAway{Reason: tunnel.Moved}); err != nil {
		t.Fatal(err)
	}
	b.plane.await(t, ssh, 0)
}
