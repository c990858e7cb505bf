package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"culvert/internal/upstream"
)

// visit has a TCP serve one visitor, and gives the visitor's end.
func visit(t testing.TB, ctx context.Context, u *upstream.Upstream) (visitor *net.TCPConn, served <-chan struct{}) {
	near, far := pair(t)
	done := make(chan struct{})
	p := NewTCP(TCPConfig{Settings: Settings{Routes: RoutesTo(u)}, Log: quiet()})
	go func() {
		defer close(done)
		p.Serve(ctx, upstream.FromTCP(far))
	}()
	return near, done
}

func say(t testing.TB, c *net.TCPConn, words string) {
	t.Helper()
	if _, err := io.WriteString(c, words); err != nil {
		t.Fatal(err)
	}
}

func TestTCPReachesAMemberPastThoseThatFail(t *testing.T) {
	good := static(service(t, echo), upstream.Raw)
	for _, tt := range []struct {
		name  string
		first upstream.Member
	}{
		{"none before it", nil},
		{"a member that refuses", static(closedPort, upstream.Raw)},
		{"a member that times out", failing("slow", upstream.TimedOut, false)},
		{"a member that was lost before bytes were sent", failing("lost", upstream.Lost, false)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := upstreamOf(good)
			if tt.first != nil {
				u = upstreamOf(tt.first, good)
			}
			visitor, served := visit(t, t.Context(), u)
			say(t, visitor, "hello")
			_ = visitor.CloseWrite()
			if p, err := io.ReadAll(visitor); err != nil || string(p) != "hello" {
				t.Errorf("read %q, %v, want hello and an end", p, err)
			}
			<-served
		})
	}
}

func TestTCPVisitorWithoutServiceIsReset(t *testing.T) {
	untouched := func(t *testing.T) upstream.Member {
		return &told{name: "second", dial: func(context.Context, *upstream.Visit) (upstream.Dialed, error) {
			t.Error("the second member was asked although the first may have passed bytes on")
			return upstream.Dialed{}, errors.New("no")
		}}
	}
	for _, tt := range []struct {
		name    string
		members func(t *testing.T) []upstream.Member
	}{
		{"no member", func(*testing.T) []upstream.Member { return nil }},
		{"all refuse", func(t *testing.T) []upstream.Member {
			return []upstream.Member{static(closedPort, upstream.Raw), static("127.0.0.1:2", upstream.Raw)}
		}},
		{"the first may have passed bytes on", func(t *testing.T) []upstream.Member {
			return []upstream.Member{failing("first", upstream.Lost, true), untouched(t)}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			visitor, served := visit(t, t.Context(), upstreamOf(tt.members(t)...))
			if _, err := visitor.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %v, want a reset", err)
			}
			<-served
		})
	}
}

func TestTCPMemberThatDiesAfterFirstBytesIsNotReplaced(t *testing.T) {
	var second atomic.Bool
	dies := static(service(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 5))
		_ = c.SetLinger(0)
	}), upstream.Raw)
	other := static(service(t, func(*net.TCPConn) { second.Store(true) }), upstream.Raw)
	visitor, served := visit(t, t.Context(), upstreamOf(dies, other))
	say(t, visitor, "hello")
	if _, err := visitor.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %v, want a reset", err)
	}
	<-served
	if second.Load() {
		t.Error("a second member got a connection")
	}
}

func TestTCPFirstBytesAreSentOnce(t *testing.T) {
	addr := service(t, echo)
	// A member that passes the first bytes on while it dials, as a tunnel does.
	eager := &told{name: "eager", dial: func(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
		d, err := static(addr, upstream.Raw).Dial(ctx, v)
		if err != nil {
			return d, err
		}
		p, _ := v.First.Bytes()
		_, err = d.Conn.Write(p)
		return upstream.Dialed{Conn: d.Conn, FirstSent: true}, err
	}}
	visitor, served := visit(t, t.Context(), upstreamOf(eager))
	say(t, visitor, "hello ")
	got := make([]byte, 6)
	if _, err := io.ReadFull(visitor, got); err != nil {
		t.Fatal(err)
	}
	say(t, visitor, "world")
	_ = visitor.CloseWrite()
	rest, err := io.ReadAll(visitor)
	if all := string(got) + string(rest); err != nil || all != "hello world" {
		t.Errorf("read %q, %v, want hello world", all, err)
	}
	<-served
}

func TestTCPServiceMaySpeakFirst(t *testing.T) {
	u := upstreamOf(static(service(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "SSH-2.0\r\n") }), upstream.Raw))
	visitor, served := visit(t, t.Context(), u)
	if p, err := io.ReadAll(visitor); err != nil || string(p) != "SSH-2.0\r\n" {
		t.Errorf("read %q, %v", p, err)
	}
	visitor.Close()
	<-served
}

func TestTCPLargerThanTheFirstRead(t *testing.T) {
	visitor, served := visit(t, t.Context(), upstreamOf(static(service(t, echo), upstream.Raw)))
	big := bytes.Repeat([]byte("0123456789"), 100_000)
	go func() {
		_, _ = visitor.Write(big)
		_ = visitor.CloseWrite()
	}()
	if got, err := io.ReadAll(visitor); err != nil || !bytes.Equal(got, big) {
		t.Errorf("read %d bytes, %v, want %d", len(got), err, len(big))
	}
	<-served
}

func TestTCPVisitorThatLeavesEndsTheDial(t *testing.T) {
	dialing := make(chan struct{})
	hangs := &told{name: "hangs", dial: func(ctx context.Context, _ *upstream.Visit) (upstream.Dialed, error) {
		close(dialing)
		<-ctx.Done()
		return upstream.Dialed{}, &upstream.DialError{Member: "hangs", Reason: upstream.Canceled, Err: ctx.Err()}
	}}
	visitor, served := visit(t, t.Context(), upstreamOf(hangs))
	<-dialing
	_ = upstream.FromTCP(visitor).Reset()
	<-served
}

func TestTCPEndOfTheContextResetsTheVisitor(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	visitor, served := visit(t, ctx, upstreamOf(static(service(t, echo), upstream.Raw)))
	say(t, visitor, "x")
	if _, err := io.ReadFull(visitor, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := visitor.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %v, want a reset", err)
	}
	<-served
}

// BenchmarkTCPConnection is connections that carry one message there and back, their visitors and service included.
func BenchmarkTCPConnection(b *testing.B) {
	p := NewTCP(TCPConfig{Settings: Settings{Routes: RoutesTo(upstreamOf(static(service(b, answer), upstream.Raw)))}, Log: quiet()})
	addr := service(b, func(c *net.TCPConn) { p.Serve(b.Context(), upstream.FromTCP(c)) })
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		msg := make([]byte, 200)
		for pb.Next() {
			visitor, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = visitor.Write(msg)
			if _, err := io.ReadFull(visitor, msg); err != nil {
				b.Error(err)
			}
			visitor.Close()
		}
	})
}

// answer sends one message back and waits for the end.
func answer(c *net.TCPConn) {
	msg := make([]byte, 200)
	for {
		if _, err := io.ReadFull(c, msg); err != nil {
			return
		}
		_, _ = c.Write(msg)
	}
}
