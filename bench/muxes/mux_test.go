package muxes

import (
	"io"
	"net"
	"testing"
)

// session is one end of a multiplexer.
type session interface {
	Open() (stream, error)
	Accept() (stream, error)
	Close() error
}

// stream is a stream of it. Close ends both directions: what was written arrives, and the peer reads to EOF.
type stream interface {
	io.ReadWriteCloser
}

// multiplexer makes sessions over connections, which the session owns.
type multiplexer struct {
	name           string
	client, server func(net.Conn) (session, error)
}

func multiplexers() []multiplexer {
	return []multiplexer{culvertMux(), libp2pMux(), hashicorpMux(), smuxMux()}
}

// pair is a session with both its ends. As in the product, the end that accepted the connection opens the streams.
func pair(tb testing.TB, m multiplexer) (opener, acceptor session) {
	tb.Helper()
	near, far := connections(tb)
	type made struct {
		s   session
		err error
	}
	accepted := make(chan made, 1)
	go func() {
		s, err := m.server(far)
		accepted <- made{s, err}
	}()
	dialler, err := m.client(near)
	if err != nil {
		tb.Fatal(err)
	}
	a := <-accepted
	if a.err != nil {
		tb.Fatal(a.err)
	}
	tb.Cleanup(func() {
		dialler.Close()
		a.s.Close()
	})
	return a.s, dialler
}
