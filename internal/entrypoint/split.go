package entrypoint

import (
	"crypto/tls"
	"net"
	"sync"
)

// Split is a listener that keeps the connections of one protocol for itself: those that named it in their TLS handshake
// (ALPN). Its Accept gives all others.
type Split struct {
	net.Listener
	protocol string
	take     func(*tls.Conn)

	taking sync.WaitGroup
	mu     sync.Mutex
	taken  map[*tls.Conn]struct{} // whose take has not returned; nil once closed
}

// NewSplit makes a listener of ln, which it owns and which gives connections as TLS does. Each connection of the protocol,
// which must have come by TLS 1.3, is given to take, in a goroutine of its own; take owns it.
func NewSplit(ln net.Listener, protocol string, take func(*tls.Conn)) *Split {
	return &Split{Listener: ln, protocol: protocol, take: take, taken: make(map[*tls.Conn]struct{})}
}

// Accept gives the next connection of another protocol. Its errors are those of the listener.
func (s *Split) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tc, ok := c.(*tls.Conn)
		if !ok {
			return c, nil
		}
		state := tc.ConnectionState()
		switch {
		case state.NegotiatedProtocol != s.protocol:
			return c, nil
		case state.Version < tls.VersionTLS13:
			_ = c.Close()
		default:
			s.hand(tc)
		}
	}
}

func (s *Split) hand(c *tls.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		_ = c.Close()
		return
	}
	s.taken[c] = struct{}{}
	s.taking.Go(func() {
		s.take(c)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.taken, c)
	})
}

// Close stops accepting, closes the connections whose take has not returned and waits until it has.
func (s *Split) Close() error {
	err := s.Listener.Close()
	s.mu.Lock()
	for c := range s.taken {
		_ = c.NetConn().Close() // without TLS's goodbye, for which a stranger may let it wait
	}
	s.taken = nil
	s.mu.Unlock()
	s.taking.Wait()
	return err
}
