//go:build unix

package handover

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// role makes the test binary a process that takes another's place, in one of several ways.
const role = "CULVERT_TEST_HANDOVER"

func TestMain(m *testing.M) {
	if r := os.Getenv(role); r != "" {
		if err := play(r); err != nil {
			fmt.Fprintln(os.Stderr, r, err)
			os.Exit(3)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func play(r string) error {
	switch r {
	case "fails":
		return io.ErrUnexpectedEOF
	case "hangs":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		<-ctx.Done()
		return nil
	}
	s, err := Inherit(quiet())
	if err != nil {
		return err
	}
	for _, name := range []string{variable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if _, ok := os.LookupEnv(name); ok {
			return fmt.Errorf("%s is still in the environment", name)
		}
	}
	pc, err := s.ListenPacket(net.ListenConfig{}, "udp", os.Getenv("UDP_ADDR"))
	if err != nil {
		return err
	}
	ln, err := s.Listen(net.ListenConfig{}, "tcp", os.Getenv("TCP_ADDR"))
	if err != nil {
		return err
	}
	if err := s.Ready(); err != nil {
		return err
	}
	if r == "dies" {
		return io.ErrUnexpectedEOF
	}
	<-s.Turn()
	go func() { _ = s.Run(context.Background()) }()
	go func() {
		p := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(p)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(udpTo{pc, from}, "%d", os.Getpid())
		}
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "%d", os.Getpid())
		_ = c.Close()
	}
}

type udpTo struct {
	net.PacketConn
	to net.Addr
}

func (u udpTo) Write(p []byte) (int, error) { return u.WriteTo(p, u.to) }
