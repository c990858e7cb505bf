package mux_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"

	"culvert/internal/mux"
)

// sockets joins two TCP sockets.
func sockets(t testing.TB) (a, b net.Conn) {
	t.Helper()
	a, b = newSocketPeers(t).pair()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// joined gives two sessions over TCP with one accepted stream.
func joined(t testing.TB) (opened, accepted *mux.Stream) {
	t.Helper()
	a, b := sockets(t)
	client, err := mux.Client(a, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := mux.Server(b, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(nil); server.Close(nil) })
	opened, err = server.Open(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = client.Accept(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := accepted.Confirm(); err != nil {
		t.Fatal(err)
	}
	return opened, accepted
}

// allocs is how many objects the whole process makes for one run of f, after some runs to warm up.
func allocs(runs int, f func()) float64 {
	for range runs / 2 {
		f()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(runs)
}

// operations is how often something of a size is worth doing: for longer than acknowledgements may take, and memory with them.
func operations(size int) int { return 128 << 20 / (size + 4<<10) }

// few is how many objects an operation may cost on average: pools that the collector empties, and the heartbeat's.
const few = 0.2

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	tests := []struct {
		name string
		size int
	}{{"echo of 100 bytes", 100}, {"echo of 64 KiB", 64 << 10}, {"echo of 1 MiB", 1 << 20}}
	for _, test := range tests {
		t.Run("Write and Read, "+test.name, func(t *testing.T) {
			a, b := joined(t)
			go echo(t, b, min(test.size, 64<<10))
			request, answer := make([]byte, test.size), make([]byte, test.size)
			got := allocs(operations(test.size), func() { roundTrip(t, a, request, answer) })
			if got > few*float64(1+test.size/(64<<10)) {
				t.Errorf("%.3f allocations an operation", got)
			}
			t.Logf("%.4f allocations an operation", got)
			_ = a.Reset()
		})
		t.Run("Pull and Push, "+test.name, func(t *testing.T) {
			visitor := pushAndPull(t)
			request, answer := make([]byte, test.size), make([]byte, test.size)
			got := allocs(operations(test.size), func() { roundTrip(t, visitor, request, answer) })
			if got > few*float64(1+test.size/(64<<10)) {
				t.Errorf("%.3f allocations an operation", got)
			}
			t.Logf("%.4f allocations an operation", got)
		})
	}
}

// echo answers pieces of a size. Unlike io.Copy it takes a whole one before it answers.
func echo(t testing.TB, conn io.ReadWriter, size int) {
	buf := make([]byte, size)
	for {
		if _, err := io.ReadFull(conn, buf); err != nil {
			return
		}
		if _, err := conn.Write(buf); err != nil {
			t.Error(err)
			return
		}
	}
}

func roundTrip(t testing.TB, conn io.ReadWriter, request, answer []byte) {
	for len(request) > 0 { // in pieces, so that nobody waits for somebody who waits
		n := min(len(request), 64<<10)
		if _, err := conn.Write(request[:n]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, answer[:n]); err != nil {
			t.Fatal(err)
		}
		request, answer = request[n:], answer[n:]
	}
}

// pushAndPull joins a visitor's socket through a stream with a service that echoes.
func pushAndPull(t testing.TB) (visitor net.Conn) {
	t.Helper()
	opened, accepted := joined(t)
	visitor, entry := sockets(t)
	exit, service := sockets(t)
	go func() { _, _ = io.Copy(struct{ io.Writer }{service}, struct{ io.Reader }{service}) }()
	for conn, st := range map[net.Conn]*mux.Stream{entry: opened, exit: accepted} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = st.Pull(conn, func(int) {})
		}()
		st.Push(conn, func(int) {}, func(error, error) {})
		t.Cleanup(func() {
			_ = st.Reset()
			conn.Close()
			<-done
		})
	}
	return visitor
}
