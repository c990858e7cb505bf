package proxy

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/upstream"
)

// pipeEnd is a visitor without a socket.
type pipeEnd struct{ net.Conn }

func (p pipeEnd) CloseWrite() error { return p.Close() }
func (p pipeEnd) Reset() error      { return p.Close() }

// The wait for a member that becomes usable is as long as it is said to be, also if that is longer than a search may take.
func TestAVisitorWaitsAsLongAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		s := NewTCP(TCPConfig{Log: quiet(), Settings: Settings{
			Routes: RoutesTo(upstream.New(upstream.Config{Name: "empty"})), EmptyTimeout: time.Minute,
		}})
		begun := time.Now()
		s.Serve(context.Background(), pipeEnd{near})
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("the visitor waited for %s, want a minute", took)
		}
		time.Sleep(time.Second) // the goroutines that are kept for others end
	})
}
