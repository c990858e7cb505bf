package load

import (
	"context"
	"net"
	"time"
)

// SendPackets sends datagrams from so many sockets at a steady rate, for so long, and says how many it sent. What cannot
// be sent because nobody listens yet counts as sent: it is lost.
func SendPackets(ctx context.Context, addr string, sockets, rate, size int, during time.Duration) (sent int, err error) {
	conns := make([]net.Conn, sockets)
	for i := range conns {
		if conns[i], err = net.Dial("udp", addr); err != nil {
			return 0, err
		}
		defer conns[i].Close()
	}
	packet := make([]byte, size)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		took := min(time.Since(began), during)
		for due := int(took.Seconds() * float64(rate)); sent < due; sent++ {
			_, _ = conns[sent%sockets].Write(packet)
		}
		if took == during {
			return sent, nil
		}
		select {
		case <-ctx.Done():
			return sent, ctx.Err()
		case <-tick.C:
		}
	}
}
