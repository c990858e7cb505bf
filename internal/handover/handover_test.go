//go:build unix

package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair is a process's sockets: one of each kind, and one that nobody will claim.
type pair struct {
	*Sockets
	tcp    net.Listener
	udp    net.PacketConn
	orphan net.Listener
}

func open(t *testing.T, host string) *pair {
	t.Helper()
	p := &pair{Sockets: New(quiet())}
	var err error
	if p.tcp, err = p.Listen(net.ListenConfig{}, "tcp", net.JoinHostPort(host, "0")); err != nil {
		t.Fatal(err)
	}
	if p.orphan, err = p.Listen(net.ListenConfig{}, "tcp", net.JoinHostPort(host, "0")); err != nil {
		t.Fatal(err)
	}
	if p.udp, err = p.ListenPacket(net.ListenConfig{}, "udp", net.JoinHostPort(host, "0")); err != nil {
		t.Fatal(err)
	}
	gone, err := p.Listen(net.ListenConfig{}, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close() // is not handed over
	t.Cleanup(p.close)
	t.Setenv("TCP_ADDR", p.tcp.Addr().String())
	t.Setenv("UDP_ADDR", p.udp.LocalAddr().String())
	return p
}

func (p *pair) close() {
	_ = p.tcp.Close()
	_ = p.udp.Close()
	_ = p.orphan.Close()
}

func (p *pair) upgrade(t *testing.T, as string) (*Successor, error) {
	t.Helper()
	t.Setenv(role, as)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return p.Upgrade(ctx, Program{os.Args[0], os.Args})
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestTheNewProcessServesWhatTheOldOneLeaves(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			p := open(t, host)
			succ, err := p.upgrade(t, "serves")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(succ.kill)
			// It is this process's turn still: it gets what comes now. What waits when it leaves is the new one's.
			early := dial(t, "tcp", p.tcp.Addr().String())
			c, err := p.tcp.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "old")
			_ = c.Close()
			if got, _ := io.ReadAll(early); string(got) != "old" {
				t.Errorf("before the turn: got %q", got)
			}
			waits := dial(t, "tcp", p.tcp.Addr().String())
			packet := dial(t, "udp", p.udp.LocalAddr().String())
			if _, err := packet.Write([]byte("who")); err != nil {
				t.Fatal(err)
			}
			unclaimed := dial(t, "tcp", p.orphan.Addr().String())
			p.close()
			if err := succ.Leave(); err != nil {
				t.Fatal(err)
			}
			pid := strconv.Itoa(succ.PID())
			for i, c := range []net.Conn{waits, dial(t, "tcp", p.tcp.Addr().String())} {
				if got, err := io.ReadAll(c); err != nil || string(got) != pid {
					t.Errorf("connection %d: got %q, %v, want %s", i, got, err, pid)
				}
			}
			answer := make([]byte, 100)
			if n, err := packet.Read(answer); err != nil || string(answer[:n]) != pid {
				t.Errorf("datagram: got %q, %v, want %s", answer[:n], err, pid)
			}
			_ = unclaimed.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := unclaimed.Read(answer); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a connection to a port that nobody has claimed yet: %v, want that it waits", err)
			}
			if _, err := p.Listen(net.ListenConfig{}, "tcp", net.JoinHostPort(host, "0")); !errors.Is(err, ErrReplaced) {
				t.Errorf("a new socket after the end: %v", err)
			}
		})
	}
}

func TestAProcessThatCannotTakeOver(t *testing.T) {
	for as, want := range map[string]string{"fails": "exit status 3", "hangs": "not ready in time"} {
		t.Run(as, func(t *testing.T) {
			p := open(t, "127.0.0.1")
			t.Setenv(role, as)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := p.Upgrade(ctx, Program{os.Args[0], os.Args}); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error %v, want %q in it", err, want)
			}
			// The old one goes on as if nothing had been, and may try again.
			ln, err := p.Listen(net.ListenConfig{}, "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			_ = ln.Close()
			succ, err := p.upgrade(t, "serves")
			if err != nil {
				t.Fatal(err)
			}
			succ.kill()
		})
	}
	t.Run("not there", func(t *testing.T) {
		p := open(t, "127.0.0.1")
		if _, err := p.Upgrade(t.Context(), Program{"/nonexistent/culvert", nil}); err == nil || !strings.Contains(err.Error(), "/nonexistent/culvert") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("dies when it was ready", func(t *testing.T) {
		p := open(t, "127.0.0.1")
		succ, err := p.upgrade(t, "dies")
		if err != nil {
			t.Fatal(err)
		}
		<-succ.ended
		if err := succ.Leave(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("error %v", err)
		}
		ln, err := p.Listen(net.ListenConfig{}, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
	})
}

// The new process must have everything: who wants a socket while one starts gets it only when that has failed.
func TestNoSocketIsOpenedDuringAnUpgrade(t *testing.T) {
	p := open(t, "127.0.0.1")
	done, err := p.freeze()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.freeze(); err == nil {
		t.Error("two upgrades at once")
	}
	opened := make(chan error, 1)
	go func() {
		ln, err := p.Listen(net.ListenConfig{}, "tcp", "127.0.0.1:0")
		if err == nil {
			_ = ln.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("opened during an upgrade: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	done(false)
	if err := <-opened; err != nil {
		t.Errorf("after an upgrade that failed: %v", err)
	}
}

func TestSocketsOfSystemd(t *testing.T) {
	p := open(t, "127.0.0.1")
	// The name of the process is told in the environment, so that it must be known before the program starts.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), role+"=serves", "LISTEN_FDS=2", "LISTEN_FDNAMES=devices:dns")
	cmd.Stderr = os.Stderr
	for _, c := range []syscall.Conn{p.tcp.(syscall.Conn), p.udp.(syscall.Conn)} {
		fd, err := duplicate(c)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p.close()
	got, err := io.ReadAll(dial(t, "tcp", p.tcp.Addr().String()))
	if want := strconv.Itoa(cmd.Process.Pid); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %s", got, err, want)
	}
}

func TestSocketsMeantForAnotherProcess(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "3")
	s, err := Inherit(quiet())
	if err != nil || len(s.inherited) > 0 {
		t.Errorf("%d sockets, %v", len(s.inherited), err)
	}
}

func TestWhatNobodyClaimsIsClosed(t *testing.T) {
	for name, end := range map[string]bool{"in time": false, "at the end": true} {
		s := New(quiet())
		s.hold = 10 * time.Millisecond
		if end {
			s.hold = time.Hour
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.inherited = []*socket{{Network: "tcp", held: ln.(holder)}}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() {
			defer close(ran)
			_ = s.Run(ctx)
		}()
		if end {
			cancel()
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) { // returns when it is closed
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		<-ran
	}
}

func TestWhichSocketServesAnAddress(t *testing.T) {
	for _, test := range []struct {
		have string
		dual bool
		want string
		yes  bool
	}{
		{"127.0.0.1:80", false, "127.0.0.1:80", true},
		{"127.0.0.1:80", false, "127.0.0.1:81", false},
		{"127.0.0.1:80", false, "127.0.0.2:80", false},
		{"127.0.0.1:80", false, ":80", false},
		{"0.0.0.0:80", false, "0.0.0.0:80", true},
		{"0.0.0.0:80", false, ":80", false}, // it has no IPv6
		{"[::]:80", true, ":80", true},
		{"[::]:80", true, "0.0.0.0:80", true},
		{"[::]:80", true, "[::]:80", true},
		{"[::]:80", false, "0.0.0.0:80", false},
		{"[::]:80", true, "127.0.0.1:80", false},
		{"[::1]:80", false, "[::1]:80", true},
		{"[::1]:80", false, "localhost:80", false},
		{"[::1]:80", false, "[::1]:0", false},
		{"[::1]:80", false, "no address", false},
	} {
		k := &socket{actual: netip.MustParseAddrPort(test.have), dual: test.dual}
		if got := k.serves(test.want); got != test.yes {
			t.Errorf("%s (takes both families: %v) for %s: %v", test.have, test.dual, test.want, got)
		}
	}
}

// Who closes an inherited port because nobody serves it at the moment gets it again, also while the process before has it.
func TestAnInheritedSocketCanBeClosedAndHadAgain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // of the process before
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, kept := range []bool{false, true} {
		s := New(quiet())
		s.hold = 100 * time.Millisecond
		mine, err := (&socket{Network: "tcp", held: ln.(holder)}).copy()
		if err != nil {
			t.Fatal(err)
		}
		mine.Kept = kept
		s.inherited = []*socket{mine}
		set := false
		lc := net.ListenConfig{Control: func(string, string, syscall.RawConn) error { set = true; return nil }}
		for range 2 {
			got, err := s.Listen(lc, "tcp4", ln.Addr().String())
			if err != nil || got.Addr().String() != ln.Addr().String() || !set {
				t.Fatalf("got %v, options set %v, %v", got, set, err)
			}
			if list := s.all(); len(list) != 1 || list[0] == mine || list[0].Kept != kept {
				t.Errorf("while it is used, the next process would get %+v", list)
			}
			_ = got.Close()
		}
		if list := s.all(); len(list) != 1 || list[0] != mine {
			t.Errorf("while it is not used, the next process would get %+v", list)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*s.hold)
		defer cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.Run(ctx)
		}()
		if !kept { // only what somebody else has for good is held longer
			if _, err := mine.held.(net.Listener).Accept(); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			if ctx.Err() != nil {
				t.Error("held to the end")
			}
		}
		<-ended
		if _, err := mine.held.(net.Listener).Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		cancel()
	}
}

func TestWithoutAnythingInherited(t *testing.T) {
	var plain *Sockets
	ln, err := plain.Listen(net.ListenConfig{}, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	<-plain.Turn()
	if err := plain.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
}
