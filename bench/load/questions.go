package load

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// Questions is what came of asking a server of names.
type Questions struct {
	Asked, Answered int
	P50, P99        time.Duration // of those that were answered
}

// AskNames asks a server of names at a steady rate, for so long: each question from a socket, and so a port, of its own, as
// resolvers do. An answer that takes longer than a second is none. What a stall of this machine has held up is left out: all
// of it at once would be another load.
func AskNames(ctx context.Context, addr, name string, rate int, during time.Duration) (q Questions, err error) {
	var asking sync.WaitGroup
	var mu sync.Mutex
	var took Times
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	most := max(rate/20, 1) // 50 ms' worth
	for began, begun, over := time.Now(), 0, false; !over; {
		gone := min(time.Since(began), during)
		over = gone == during
		due := int(gone.Seconds() * float64(rate))
		for begun = max(begun, due-most); begun < due; begun++ {
			q.Asked++
			p := question(uint16(q.Asked), name)
			asking.Go(func() {
				if d, ok := ask(addr, p); ok {
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
		}
		select {
		case <-ctx.Done():
			err, over = ctx.Err(), true
		case <-tick.C:
		}
	}
	asking.Wait()
	q.Answered = len(took)
	q.P50, q.P99 = took.Quantile(.5), took.Quantile(.99)
	return q, err
}

// question asks for the IPv4 addresses of a name of one label.
func question(id uint16, name string) []byte {
	p := binary.BigEndian.AppendUint16(nil, id)
	p = append(p, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(name)))
	p = append(p, name...)
	return append(p, 0, 0, 1, 0, 1)
}

func ask(addr string, p []byte) (took time.Duration, ok bool) {
	began := time.Now()
	c, err := net.Dial("udp", addr)
	if err != nil {
		return 0, false
	}
	defer c.Close()
	_ = c.SetReadDeadline(began.Add(time.Second)) // fails only on a closed connection
	answer := make([]byte, 512)
	if _, err := c.Write(p); err != nil {
		return 0, false
	}
	n, err := c.Read(answer)
	return time.Since(began), err == nil && n > len(p) && answer[0] == p[0] && answer[1] == p[1] // longer: it has a record
}
