package control

import (
	"net"
	"time"

	"culvert/internal/tunnel"
)

// spoken waits for the client's first bytes, so that one who says nothing costs no session. It closes the connection on
// failure.
func spoken(conn net.Conn) (net.Conn, error) {
	first := make([]byte, 512)
	_ = conn.SetReadDeadline(time.Now().Add(tunnel.HelloTimeout)) // a failure shows in the read
	n, err := conn.Read(first)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Time{})
	return &replayed{conn, first[:n]}, nil
}

// replayed is a connection whose first bytes have been read already.
type replayed struct {
	net.Conn
	first []byte
}

func (c *replayed) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	if c.first = c.first[n:]; len(c.first) == 0 {
		c.first = nil // its memory is not needed for the rest of the session
	}
	return n, nil
}
