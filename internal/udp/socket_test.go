package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listenAt(t testing.TB, addr string) *Socket {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dialTo(t testing.TB, addr string) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), new(net.Dialer), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// receive gives n packets, whose data stays.
func receive(t testing.TB, s *Socket, n int) (all []Packet) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	for len(all) < n {
		b, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Len() {
			p := b.At(i)
			p.Data = append([]byte{}, p.Data...)
			all = append(all, p)
		}
		b.Release()
	}
	return all
}

func TestSocketAndConn(t *testing.T) {
	for _, tt := range []struct{ name, listen, dial string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1"},
		{"every address of IPv4", "0.0.0.0:0", "127.0.0.9"},
		{"every address, asked by IPv4", ":0", "127.0.0.10"},
		{"every address, asked by IPv6", ":0", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := listenAt(t, tt.listen)
			c := dialTo(t, net.JoinHostPort(tt.dial, fmt.Sprint(s.LocalAddr().Port())))
			sizes := []int{3, 0, 9000, 1, 65507 - 20}
			for i, size := range sizes {
				if n, err := c.Write(make([]byte, size)); n != size || err != nil {
					t.Fatalf("write of %d bytes: %d, %v", size, n, err)
				}
				p := receive(t, s, 1)[0]
				if len(p.Data) != size || p.Source != c.LocalAddr().(*net.UDPAddr).AddrPort() {
					t.Errorf("datagram %d: %d bytes from %s, want %d from %s", i, len(p.Data), p.Source, size, c.LocalAddr())
				}
				if s.wildcard && p.Destination != netip.MustParseAddr(tt.dial) {
					t.Errorf("datagram %d came to %s, want %s", i, p.Destination, tt.dial)
				}
				if err := s.Send(p.Data, p.Source, p.Destination); err != nil {
					t.Fatal(err)
				}
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				answer, err := c.Next() // a connected socket hears only the address that it asked
				if len(answer) != size || err != nil {
					t.Errorf("answer %d: %d bytes, %v, want %d", i, len(answer), err, size)
				}
			}
			c.Release()
		})
	}
}

func TestBatches(t *testing.T) {
	s := listenAt(t, "127.0.0.1:0")
	c := dialTo(t, s.LocalAddr().String())
	const n = 100
	for i := range n {
		if _, err := fmt.Fprint(c, i); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range receive(t, s, n) {
		if got, want := string(p.Data), fmt.Sprint(i); got != want {
			t.Errorf("datagram %d is %q", i, got)
		}
	}
}

func TestRefusalIsHeardAndClears(t *testing.T) {
	s := listenAt(t, "127.0.0.1:0")
	at := s.LocalAddr().String()
	c := dialTo(t, at)
	s.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if p, err := c.Next(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %q, %v, want a refusal", p, err)
	}
	s = listenAt(t, at)
	if _, err := c.Write([]byte("y")); err != nil {
		t.Errorf("after the refusal was told: %v", err)
	}
	if p := receive(t, s, 1)[0]; string(p.Data) != "y" {
		t.Errorf("got %q", p.Data)
	}
}

func TestWriteDoesNotWait(t *testing.T) {
	s := listenAt(t, "127.0.0.1:0")
	c := dialTo(t, s.LocalAddr().String())
	if _, err := c.Write(make([]byte, MaxDatagram+1)); !errors.Is(err, ErrDropped) {
		t.Errorf("a datagram that is too long: %v, want %v", err, ErrDropped)
	}
	_ = c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := c.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past its deadline a read gives %v", err)
	}
	c.Close()
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write to a closed socket: %v", err)
	}
}

func TestCloseEndsReceive(t *testing.T) {
	s := listenAt(t, "127.0.0.1:0")
	ended := make(chan error, 1)
	go func() {
		_, err := s.Receive()
		ended <- err
	}()
	s.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestInheritedSocket(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.LocalAddr().String() != c.LocalAddr().String() {
		t.Errorf("bound to %s, want %s", s.LocalAddr(), c.LocalAddr())
	}
	u, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(u); err == nil {
		t.Error("a socket of another kind was taken")
	}
}

// A datagram costs no memory on the way in and out. What is measured is a connected socket on the same machine.
func BenchmarkThereAndBack(b *testing.B) {
	s := listenAt(b, ":0")
	c := dialTo(b, fmt.Sprintf("127.0.0.1:%d", s.LocalAddr().Port()))
	p := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
		batch, err := s.Receive()
		if err != nil {
			b.Fatal(err)
		}
		got := batch.At(0)
		if err := s.Send(got.Data, got.Source, got.Destination); err != nil {
			b.Fatal(err)
		}
		batch.Release()
		if _, err := c.Next(); err != nil {
			b.Fatal(err)
		}
		c.Release()
	}
}

// A batch of one call, beside one call for each datagram.
func BenchmarkReceive(b *testing.B) {
	for _, burst := range []int{1, 16} {
		b.Run(fmt.Sprintf("bursts of %d", burst), func(b *testing.B) {
			s := listenAt(b, "127.0.0.1:0")
			c := dialTo(b, s.LocalAddr().String())
			p := make([]byte, 200)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for range burst {
					if _, err := c.Write(p); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				for n := 0; n < burst; {
					batch, err := s.Receive()
					if err != nil {
						b.Fatal(err)
					}
					n += batch.Len()
					batch.Release()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*burst), "ns/datagram")
		})
	}
}
