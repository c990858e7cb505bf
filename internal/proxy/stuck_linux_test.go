package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"culvert/internal/accesslog"
	"culvert/internal/upstream"

	"golang.org/x/sys/unix"
)

// A service that hangs takes nothing of what visitors say, so nobody reads of them: neither their resets nor their ends are
// seen by who copies.
func TestVisitorsOfAServiceThatHangs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		leave func(*net.TCPConn)
		looks int // after the one that sees how much has moved; 0: it stays
		why   string
	}{
		{"stays", func(*net.TCPConn) {}, 0, ""},
		{"resets", func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }, 1, "reset"},
		{"ends", func(c *net.TCPConn) { _ = c.CloseWrite() }, 3, "ended, and what it said was not taken for 30s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pieces := make(chan struct{})
			addr := service(t, func(c *net.TCPConn) {
				for range pieces {
					_, _ = io.ReadFull(c, make([]byte, 64<<10))
				}
			})
			defer close(pieces)
			records := accesslog.New(accesslog.Config{Records: 1})
			tcp := NewTCP(TCPConfig{
				Settings: Settings{Name: "in", Routes: RoutesTo(upstreamOf(static(addr, upstream.Raw))), HalfClosedTimeout: 3 * lookPause},
				Records:  records, Log: quiet(),
			})
			visitor, far := pair(t)
			served := make(chan struct{})
			go func() {
				defer close(served)
				tcp.Serve(t.Context(), upstream.FromTCP(far))
			}()
			fill(t, visitor)
			tcp.look() // sees how much has moved
			tt.leave(visitor)
			here := upstream.FromTCP(far)
			for tt.name == "ends" && stateOf(here) != ended { // an end comes after what was said, which takes some room
				pieces <- struct{}{}
				<-time.After(10 * time.Millisecond)
				tcp.look()
			}
			if tt.looks == 0 {
				for range 10 {
					tcp.look()
				}
				if over(served) {
					t.Error("a visitor who is there was reset")
				}
				_ = visitor.SetLinger(0)
				_ = visitor.Close()
				tt.looks = 1
			}
			await(t, func() bool { return stateOf(here) != present })
			looks := 0
			await(t, func() bool {
				if over(served) {
					return true
				}
				looks++
				tcp.look()
				return false
			})
			if looks < tt.looks {
				t.Errorf("over after %d looks, want %d", looks, tt.looks)
			}
			if why := records.Find(accesslog.Query{})[0].Why; !strings.Contains(why, tt.why) {
				t.Errorf("the record says %q, want %q", why, tt.why)
			}
		})
	}
}

func over(served <-chan struct{}) bool {
	select {
	case <-served:
		return true
	default:
		return false
	}
}

// A visitor who has ended, and whose last words wait for a service that is busy with its answer, hears all of that.
func TestWhoGetsAnAnswerIsNotStuck(t *testing.T) {
	read, answer := make(chan struct{}), make(chan struct{})
	addr := service(t, func(c *net.TCPConn) {
		for range read {
			_, _ = io.ReadFull(c, make([]byte, 64<<10))
		}
		for range answer {
			_, _ = io.WriteString(c, "x")
		}
	})
	defer close(answer)
	tcp := NewTCP(TCPConfig{
		Settings: Settings{Name: "in", Routes: RoutesTo(upstreamOf(static(addr, upstream.Raw))), HalfClosedTimeout: 3 * lookPause},
		Log:      quiet(),
	})
	visitor, far := pair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		tcp.Serve(t.Context(), upstream.FromTCP(far))
	}()
	fill(t, visitor)
	_ = visitor.CloseWrite()
	here := upstream.FromTCP(far)
	for stateOf(here) != ended {
		read <- struct{}{}
		<-time.After(10 * time.Millisecond)
	}
	close(read)
	for range 10 {
		answer <- struct{}{}
		if _, err := io.ReadFull(visitor, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		tcp.look()
	}
	_ = visitor.SetLinger(0)
	_ = visitor.Close()
	await(t, func() bool { tcp.look(); return over(served) })
}

// A service that has ended after a visitor has is no service that was reset: what it said is there to be read, by a visitor who
// takes the time.
func TestWhatBothSidesHaveEndedIsNotReset(t *testing.T) {
	said := make(chan int, 1)
	addr := service(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		said <- fill(t, c)
	})
	tcp := NewTCP(TCPConfig{
		Settings: Settings{Name: "in", Routes: RoutesTo(upstreamOf(static(addr, upstream.Raw)))}, Log: quiet(),
	})
	visitor, far := pair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		tcp.Serve(t.Context(), upstream.FromTCP(far))
	}()
	_ = visitor.CloseWrite()
	want, got := <-said, int64(0)
	ended := func() (yes bool) {
		tcp.open.list(func(p *passage) bool {
			raw, _ := rawConn(p.out.src)
			_ = raw.Control(func(fd uintptr) {
				info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
				yes = err == nil && info.State == tcpClose
			})
			return false
		})
		return yes
	}
	await(t, func() bool { // its end comes after what was said, which takes some room
		if ended() {
			return true
		}
		n, err := io.CopyN(io.Discard, visitor, 64<<10)
		got += n
		return err != nil
	})
	for range 3 {
		tcp.look()
	}
	n, err := io.Copy(io.Discard, visitor)
	if got += n; got != int64(want) || err != nil {
		t.Errorf("the visitor got %d bytes, %v, want %d", got, err, want)
	}
	<-served
}

// fill writes until nobody takes any more, and says how much. A few bytes may still go, one with each probe of the kernel's.
func fill(t *testing.T, c *net.TCPConn) (written int) {
	t.Helper()
	piece := make([]byte, 64<<10)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Write(piece)
		written += n
		if errors.Is(err, os.ErrDeadlineExceeded) && n < len(piece)/8 {
			return written
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
			return written
		}
	}
}
