package load

import (
	"net"
	"time"
)

// Ping sends small requests one after the other on one open connection for so long, at most one each pause. A
// connection's first one is not among the times: it pays for the connection.
func Ping(addr string, during, pause time.Duration) (Times, int) {
	var times Times
	failed := 0
	var c net.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for end := time.Now().Add(during); time.Now().Before(end); <-tick.C {
		if c == nil {
			var err error
			if c, err = warm(addr); err != nil {
				failed++
				continue
			}
		}
		begin := time.Now()
		if err := Request(c, "/"); err != nil {
			failed++
			c.Close()
			c = nil
			continue
		}
		times = append(times, time.Since(begin))
	}
	return times, failed
}

// warm is a connection that has carried a request.
func warm(addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	if err := Request(c, "/"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
