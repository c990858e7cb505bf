package dataplane

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"culvert/internal/control"
)

// frozen opens no socket until it is let, as while an upgrade runs.
type frozen struct {
	asked chan struct{} // has room
	until chan struct{}
}

func (f frozen) Settled() {
	f.asked <- struct{}{}
	<-f.until
}

func (f frozen) Listen(lc net.ListenConfig, network, address string) (net.Listener, error) {
	f.asked <- struct{}{}
	<-f.until
	return lc.Listen(context.Background(), network, address)
}

func (f frozen) ListenPacket(lc net.ListenConfig, network, address string) (net.PacketConn, error) {
	f.asked <- struct{}{}
	<-f.until
	return lc.ListenPacket(context.Background(), network, address)
}

// A client that comes while another process is to take over waits; who asks how the server is does not.
func TestAnUpgradeHoldsUpNobodyWhoAsks(t *testing.T) {
	f := frozen{make(chan struct{}, 9), make(chan struct{})}
	d := New(Config{Addr: "127.0.0.1", Log: slog.New(slog.DiscardHandler), Counters: start(t).cfg.Counters})
	d.cfg.Inherit.Sockets = f
	_, port, _ := net.SplitHostPort(free(t, "tcp"))
	published, asked := make(chan error, 1), make(chan struct{})
	go func() {
		_, err := d.Publish(control.Offered{Name: mustName(t, "tcp/"+port), Member: newClient("a", named(t, "a"))})
		published <- err
	}()
	<-f.asked
	go func() {
		_ = d.Open()
		_ = d.Ready("")
		close(asked)
	}()
	await(t, "an answer", func() bool {
		select {
		case <-asked:
			return true
		default:
			return false
		}
	})
	close(f.until)
	if err := <-published; err != nil {
		t.Error(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	d.Shutdown(ended)
}
