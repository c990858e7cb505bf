package mux_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"culvert/internal/mux"
)

// A stream that nobody reads takes so much and then no more, at once; what it took arrives whole.
func TestTryWriteTakesAllOrNothing(t *testing.T) {
	opened, accepted := joined(t)
	piece := make([]byte, 1000)
	taken := 0
	for {
		sent, err := opened.TryWrite([]byte{1, 2}, piece)
		if err != nil {
			t.Fatal(err)
		}
		if !sent {
			break
		}
		if taken++; taken > 10_000 {
			t.Fatal("a stream that nobody reads takes 10 MB")
		}
	}
	if err := opened.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := accepted.Await(); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, accepted)
	if want := int64(taken * (2 + len(piece))); n != want || err != nil {
		t.Errorf("%d bytes arrived (%v) of %d that were taken", n, err, want)
	}
	if err := accepted.Await(); err != nil { // of an end
		t.Error(err)
	}
	if _, err := opened.TryWrite(piece); !errors.Is(err, net.ErrClosed) {
		t.Errorf("behind the end: %v", err)
	}
}

func TestAwait(t *testing.T) {
	opened, accepted := joined(t)
	awaited := func(st *mux.Stream) <-chan error {
		done := make(chan error, 1)
		go func() { done <- st.Await() }()
		return done
	}
	bytes := awaited(accepted)
	select {
	case <-bytes:
		t.Error("Await did not wait")
	default:
	}
	if _, err := opened.TryWrite([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-bytes; err != nil {
		t.Error(err)
	}
	if n, err := accepted.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("after Await a read gives %d, %v", n, err)
	}
	end := awaited(accepted)
	if err := opened.Reset(); err != nil {
		t.Fatal(err)
	}
	<-end
	if _, err := accepted.Read(make([]byte, 10)); !errors.Is(err, mux.ErrReset) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after Await a read gives %v, want a reset", err)
	}
}
