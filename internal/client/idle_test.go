package client

import (
	"context"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"culvert/internal/proxy"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// remote opens connections of a tunnel in a client's session, as the server's members do.
type remote struct {
	session *tunnel.Session
	tunnel  tunnel.Name
}

func (m *remote) Name() string                { return "client" }
func (m *remote) Protocol() upstream.Protocol { return upstream.Raw }

func (m *remote) Dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	st, err := m.session.Open(ctx, tunnel.Open{Tunnel: m.tunnel, ID: v.ID, Source: v.Source, Destination: v.Destination})
	if err != nil {
		return upstream.Dialed{}, err
	}
	if err := st.Result(ctx); err != nil {
		return upstream.Dialed{}, err
	}
	return upstream.Dialed{Conn: st}, nil
}

// echoes sends each connection's bytes back, all with one goroutine at a time for each that speaks.
func echoes(t testing.TB) string {
	t.Helper()
	return listenAnd(t, func(c *net.TCPConn) {
		defer c.Close()
		r := upstream.NewReader(c, 1024)
		for {
			p, err := r.Next()
			if err != nil {
				return
			}
			_, _ = c.Write(p)
			r.Release()
		}
	})
}

// listenAnd has connections served, which serve owns, and says where.
func listenAnd(t testing.TB, serve func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			all.Go(func() { serve(c) })
		}
	})
	return ln.Addr().String()
}

// connect makes connections that have carried a message there and back.
func connect(t testing.TB, addr string, n int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		msg := make([]byte, 200)
		_, _ = c.Write(msg)
		if _, err := io.ReadFull(c, msg); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// awaitGoroutines waits until no more than most are left, or for long enough.
func awaitGoroutines(most int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if runtime.NumGoroutine() <= most {
			return
		}
		<-tick.C
	}
}

type cost struct{ goroutines, heap, stacks float64 }

// spent is what the process has in use, after what nobody needs has gone.
func spent() cost {
	for range 8 { // a collection halves a stack at most
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return cost{float64(runtime.NumGoroutine()), float64(m.HeapAlloc), float64(m.StackInuse)}
}

func (c cost) minus(d cost, n float64) cost {
	return cost{(c.goroutines - d.goroutines) / n, (c.heap - d.heap) / n, (c.stacks - d.stacks) / n}
}

// TestIdleConnectionCostsLittle counts what both ends of a tunnel hold for a connection that has carried something and is
// idle. Visitors and service are in the same process; what they hold is measured without the tunnel and taken off.
func TestIdleConnectionCostsLittle(t *testing.T) {
	const n = 400
	const most = 12 << 10 // bytes, both ends together
	awaitGoroutines(3)    // those of tests before are gone, with what they hold
	service := echoes(t)
	name := tunnel.TCPName(2222)
	s := serverOf(t, Upstream{Tunnel: name, Scheme: SchemeTCP, Network: "tcp", Address: service, Spec: "2222=" + service})
	u := upstream.New(upstream.Config{Name: "test", Retries: -1})
	u.Add(upstream.Placed{Member: &remote{s, name}})
	relay := proxy.NewTCP(proxy.TCPConfig{Settings: proxy.Settings{Routes: proxy.RoutesTo(u)}, Log: quiet})
	ctx, cancel := context.WithCancel(t.Context())
	entry := listenAnd(t, func(c *net.TCPConn) { relay.ServeTCP(ctx, c, func() {}) })
	t.Cleanup(cancel)

	connect(t, entry, 10)
	start := spent()
	direct := connect(t, service, n)
	plain := spent()
	tunnelled := connect(t, entry, n)
	awaitGoroutines(int(plain.goroutines) + n + 2) // those of the service, and one a side for all
	end := spent()

	both, without := end.minus(plain, n), plain.minus(start, n)
	own := both.minus(without, 1)
	t.Logf("both ends: %.2f goroutines, %.2f KiB of heap, %.2f KiB of stacks; visitor and service besides: %.2f, %.2f, %.2f",
		own.goroutines, own.heap/1024, own.stacks/1024, without.goroutines, without.heap/1024, without.stacks/1024)
	if own.goroutines > 0.5 {
		t.Errorf("%.2f goroutines for each, want none", own.goroutines)
	}
	if got := own.heap + own.stacks; got > most && !raceEnabled() {
		t.Errorf("%.1f KiB for each, want at most %d", got/1024, most>>10)
	}
	runtime.KeepAlive(direct)
	runtime.KeepAlive(tunnelled)
}

// raceEnabled says whether the race detector is on, which makes stacks larger.
func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}
