package ws

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"culvert/internal/cork"
)

// counted counts the writes to a socket.
type counted struct {
	*net.TCPConn
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.TCPConn.Write(p)
}

func (c *counted) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	r := &countedRaw{RawConn: raw}
	r.counting = func(fd uintptr) bool {
		c.writes.Add(1)
		return r.f(fd)
	}
	return r, err
}

// countedRaw counts each time that the descriptor is given to be written.
type countedRaw struct {
	syscall.RawConn
	f, counting func(fd uintptr) bool
}

func (r *countedRaw) Write(f func(fd uintptr) bool) error {
	r.f = f
	return r.RawConn.Write(r.counting)
}

// link is a connection as it is used: WebSocket over TLS over a cork over a socket.
type link struct {
	*conn
	socket *counted
}

// pair is a certificate and its key.
var pair = sync.OnceValue(func() tls.Certificate {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	return web.TLS.Certificates[0]
})

// links joins a client and a server, past the HTTP upgrade.
func links(t testing.TB) (client, server link) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	cs, ss := &counted{TCPConn: near.(*net.TCPConn)}, &counted{TCPConn: far.(*net.TCPConn)}
	ct := tls.Client(cork.New(cs), &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	st := tls.Server(cork.New(ss), &tls.Config{Certificates: []tls.Certificate{pair()}, DynamicRecordSizingDisabled: true})
	shaken := make(chan error, 1)
	go func() { shaken <- st.Handshake() }()
	if err := errors.Join(ct.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	client, server = link{newConn(ct, nil, true), cs}, link{newConn(st, nil, false), ss}
	t.Cleanup(func() {
		cs.Close() // without TLS's goodbye, for which nobody waits
		ss.Close()
	})
	return client, server
}

func TestAMessageIsOneSystemCall(t *testing.T) {
	client, server := links(t)
	for _, size := range []int{1, 1000, 16 << 10, 64<<10 + 500, 128<<10 + 500, 200 << 10} {
		for name, ends := range map[string][2]link{"masked": {client, server}, "plain": {server, client}} {
			from, to := ends[0], ends[1]
			p, got := payload(size), make([]byte, size)
			owned := append(make([]byte, from.Headroom()), p...)
			for how, write := range map[string]func() error{
				"write": func() error {
					_, err := from.Write(p)
					return err
				},
				"write owned": func() error { return from.WriteOwned(owned) },
			} {
				read := make(chan error, 1)
				go func() {
					_, err := io.ReadFull(to, got)
					read <- err
				}()
				before := from.socket.writes.Load()
				if err := errors.Join(write(), <-read); err != nil || !bytes.Equal(got, p) {
					t.Fatalf("%s, %s of %d bytes: came back different, err %v", name, how, size, err)
				}
				if n := from.socket.writes.Load() - before; n != 1 {
					t.Errorf("%s, %s of %d bytes: %d writes, want 1", name, how, size, n)
				}
			}
		}
	}
}

// A reader that reads on while Pending is more than a record never waits.
func TestPendingRecordsAreReadWithoutWaiting(t *testing.T) {
	client, server := links(t)
	sent := payload(100 << 10)
	if _, err := client.Write(sent); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for p, more := make([]byte, 64<<10), 0; len(got) < len(sent); {
		if server.Pending() >= 17<<10 {
			_ = server.SetReadDeadline(time.Unix(1, 0)) // a read that waits fails
			more++
		} else {
			_ = server.SetReadDeadline(time.Time{})
		}
		n, err := server.Read(p)
		if err != nil {
			t.Fatalf("after %d bytes, %d of them pending ones: %v", len(got), more, err)
		}
		got = append(got, p[:n]...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("the bytes differ")
	}
}

func TestCloseEndsAWriteThatIsUnderWay(t *testing.T) {
	client, _ := links(t) // whose server does not read
	wrote, progress := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		for p := make([]byte, 128<<10); ; {
			if _, err := client.Write(p); err != nil {
				wrote <- err
				return
			}
			select {
			case progress <- struct{}{}:
			default:
			}
		}
	}()
	for stalled := false; !stalled; {
		select {
		case <-progress:
		case <-time.After(200 * time.Millisecond):
			stalled = true
		}
	}
	start := time.Now()
	client.Close()
	<-wrote
	if took := time.Since(start); took > 4*time.Second { // a goodbye that waits for an answer takes 5
		t.Errorf("close took %v", took)
	}
}

// An idle link must be cheap: a server may have thousands.
func TestIdleLinksHoldLittle(t *testing.T) {
	const count, most = 100, 12 << 10
	all := make([][2]link, count)
	before := heap()
	for i := range all {
		client, server := links(t)
		all[i] = [2]link{client, server}
		for range 3 { // as heartbeats do
			p := make([]byte, 512)
			for _, ends := range [][2]link{{client, server}, {server, client}} {
				if err := ends[0].WriteOwned(append(make([]byte, maxHeader), "a heartbeat"...)); err != nil {
					t.Fatal(err)
				}
				if _, err := ends[1].Read(p); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	each := (heap() - before) / (2 * count)
	t.Logf("%d bytes for an end of a link", each)
	if each > most {
		t.Errorf("an idle end of a link holds %d bytes, want at most %d", each, most)
	}
	runtime.KeepAlive(all)
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one put aside, as pools do
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkLink(b *testing.B) {
	for name, masked := range sides() {
		b.Run(name, func(b *testing.B) {
			from, to := links(b)
			if !masked {
				from, to = to, from
			}
			buf := payload(maxHeader + 64<<10)
			read := make(chan error, 1)
			b.SetBytes(64 << 10)
			b.ReportAllocs()
			go func() {
				p := make([]byte, 64<<10)
				var err error
				for err == nil {
					_, err = to.Read(p)
				}
				read <- err
			}()
			before := from.socket.writes.Load()
			for b.Loop() {
				if err := from.WriteOwned(buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(from.socket.writes.Load()-before)/float64(b.N), "writes/op")
			from.socket.Close()
			<-read
		})
	}
}
