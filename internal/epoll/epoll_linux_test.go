package epoll

import (
	"testing"

	"golang.org/x/sys/unix"
)

func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

func TestEpollTellsWhatThereIsToRead(t *testing.T) {
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	told, ended := make(chan uint64), make(chan struct{})
	go func() {
		defer close(ended)
		e.Run(func(name uint64) { told <- name })
	}()
	const large = 7<<32 | 5 // a name is more than a descriptor
	r, w := pipe(t)
	defer unix.Close(r)
	defer unix.Close(w)
	if err := e.Once(r, 1); err != nil {
		t.Fatal(err)
	}
	if err := e.Once(r, large); err != nil {
		t.Errorf("a descriptor that is known: %v", err)
	}
	if _, err := unix.Write(w, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if name := <-told; name != large {
		t.Errorf("told %d, want the name given last, %d", name, uint64(large))
	}
	ended2, w2 := pipe(t)
	defer unix.Close(ended2)
	if err := e.Each(ended2, 2); err != nil {
		t.Fatal(err)
	}
	unix.Close(w2)
	for range 2 { // each time: the end is still there; and the first descriptor's byte is not told again
		if name := <-told; name != 2 {
			t.Errorf("told %d, want 2", name)
		}
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	for over := false; !over; {
		select {
		case <-told: // it was about to
		case <-ended:
			over = true
		}
	}
	if err := e.Once(r, 3); err == nil {
		t.Error("a closed list takes a descriptor")
	}
}
