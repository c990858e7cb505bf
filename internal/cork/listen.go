package cork

import "net"

// Listener gives corked connections, with the socket options of links.
type Listener struct{ net.Listener }

// Accept gives the next connection, a *Conn.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	Tune(c)
	return New(c), nil
}
