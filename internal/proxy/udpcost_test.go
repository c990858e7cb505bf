package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/udp"
)

// flood is a socket on which datagrams of many sources come, each from another one.
type flood struct {
	sources int
	data    []byte
	done    chan struct{} // closed when all have come
}

func (f *flood) Run(ctx context.Context, handle func(udp.Packet)) error {
	local := netip.MustParseAddr("192.0.2.1")
	for i := range f.sources {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|uint32(i))
		handle(udp.Packet{Data: f.data, Source: netip.AddrPortFrom(netip.AddrFrom4(a), 1000), Destination: local})
	}
	close(f.done)
	<-ctx.Done()
	return nil
}

func (f *flood) Send([]byte, netip.AddrPort, netip.Addr) error { return nil }
func (f *flood) Addr() net.Addr                                { return &net.UDPAddr{IP: net.IPv4zero, Port: 53} }

// resident is what the process takes of the machine's memory, after what nobody needs has gone.
func resident(t testing.TB) int {
	t.Helper()
	for range 3 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	return vmOf(t, "VmRSS:")
}

func vmOf(t testing.TB, what string) int { return field(t, "/proc/self/status", what) }

// kernel is what the kernel has in its own small objects.
func kernel(t testing.TB) int { return field(t, "/proc/meminfo", "Slab:") }

// field is a figure of a file of the kernel's, in bytes.
func field(t testing.TB, file, what string) int {
	t.Helper()
	status, err := os.ReadFile(file)
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, what); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no " + what)
	return 0
}

// What a million spoofed sources cost, with datagrams as large as the network carries and the default limits (S11). The
// kernel's part is a socket for each flow, of about 2 KiB; it is logged, since others on the machine change it too.
func TestMillionSpoofedSourcesCostLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("a million datagrams")
	}
	const most = 50 << 20
	s, err := net.ListenPacket("udp", "127.0.0.1:0") // nobody reads it
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f := &flood{sources: 1_000_000, data: make([]byte, 1472), done: make(chan struct{})}
	u := NewUDP(UDPConfig{
		Label: "test", Log: quiet(), Route: to(pool(datagramsTo(s.LocalAddr().String()))),
		Opened: func(UDPFlow) {}, // records cost, too
	})
	before, slab := resident(t), kernel(t)
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // VmHWM begins anew
		t.Log(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- u.Serve(ctx, f) }()
	<-f.done
	await(t, func() bool { return u.waiting.Load() == 0 }) // each flow has its member
	highest := vmOf(t, "VmHWM:") - before
	peak := resident(t)
	cost := peak - before
	t.Logf("%d flows: %.1f MB, %d bytes each; %.1f MB for a moment; the kernel %.1f MB besides",
		u.Flows(), float64(cost)/1e6, cost/u.Flows(), float64(highest)/1e6, float64(kernel(t)-slab)/1e6)
	if max(cost, highest) > most && !raceEnabled() {
		t.Errorf("a million spoofed sources cost %d bytes, want at most %d", cost, most)
	}
	if got := u.Flows(); got != DefaultMaxFlows {
		t.Errorf("%d flows, want %d", got, DefaultMaxFlows)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// echoDatagrams answers with as little as can be: what is measured is the way there and back.
func echoDatagrams(t testing.TB) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := udp.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			b, err := s.Receive()
			if err != nil {
				return
			}
			for i := range b.Len() {
				p := b.At(i)
				_ = s.Send(p.Data, p.Source, p.Destination)
			}
			b.Release()
		}
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return s.LocalAddr()
}

// burst sends n datagrams and waits for their answers.
func burst(t testing.TB, c *udp.Conn, p []byte, n int) {
	for range n {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for i := range n {
		if _, err := c.Next(); err != nil {
			t.Fatalf("answer %d of %d: %v", i, n, err)
		}
	}
	c.Release()
}

func TestDatagramsAllocateNothing(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector allocates")
	}
	service := echoDatagrams(t)
	_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(pool(datagramsTo(service.String()))), Metrics: NewUDPMetrics(prometheus.NewRegistry())})
	c, err := udp.Dial(t.Context(), new(net.Dialer), at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 200)
	burst(t, c, p, 16)
	if n := testing.AllocsPerRun(500, func() { burst(t, c, p, 16) }); n > 1 { // pools may lose a buffer now and then
		t.Errorf("%v allocations for 16 datagrams there and back, want none", n)
	}
}

func BenchmarkUDP(b *testing.B) {
	service := echoDatagrams(b)
	_, at := carryUDP(b, "127.0.0.1:0", UDPConfig{Route: to(pool(datagramsTo(service.String()))), Metrics: NewUDPMetrics(prometheus.NewRegistry())})
	for _, way := range []struct {
		name string
		to   netip.AddrPort
	}{{"direct", service}, {"through", at}} {
		for _, n := range []int{1, 32} {
			b.Run(way.name+"/bursts of "+strconv.Itoa(n), func(b *testing.B) {
				c, err := udp.Dial(b.Context(), new(net.Dialer), way.to.String())
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				p := make([]byte, 200)
				burst(b, c, p, n)
				b.ReportAllocs()
				for b.Loop() {
					burst(b, c, p, n)
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "datagrams/s")
			})
		}
	}
}
