package muxes

import (
	"context"
	"io"
	"net"

	hashicorp "github.com/hashicorp/yamux"
	libp2p "github.com/libp2p/go-yamux/v5"
	"github.com/xtaci/smux"
)

// The neighbours have their own settings, but for windows that do not bound a transfer on loopback and for pings, which
// are off.

const window = 4 << 20

type libp2pSession struct{ *libp2p.Session }

func (s libp2pSession) Open() (stream, error)   { return s.OpenStream(context.Background()) }
func (s libp2pSession) Accept() (stream, error) { return s.AcceptStream() }

func libp2pMux() multiplexer {
	c := libp2p.DefaultConfig()
	c.EnableKeepAlive = false
	c.MaxIncomingStreams = 16384
	c.MaxStreamWindowSize = window
	c.LogOutput = io.Discard
	return multiplexer{
		name: "libp2p-yamux",
		client: func(conn net.Conn) (session, error) {
			s, err := libp2p.Client(conn, c, nil)
			return libp2pSession{s}, err
		},
		server: func(conn net.Conn) (session, error) {
			s, err := libp2p.Server(conn, c, nil)
			return libp2pSession{s}, err
		},
	}
}

type hashicorpSession struct{ *hashicorp.Session }

func (s hashicorpSession) Open() (stream, error)   { return s.OpenStream() }
func (s hashicorpSession) Accept() (stream, error) { return s.AcceptStream() }

func hashicorpMux() multiplexer {
	c := hashicorp.DefaultConfig()
	c.EnableKeepAlive = false
	c.MaxStreamWindowSize = window
	c.AcceptBacklog = 4096
	c.LogOutput = io.Discard
	return multiplexer{
		name: "hashicorp-yamux",
		client: func(conn net.Conn) (session, error) {
			s, err := hashicorp.Client(conn, c)
			return hashicorpSession{s}, err
		},
		server: func(conn net.Conn) (session, error) {
			s, err := hashicorp.Server(conn, c)
			return hashicorpSession{s}, err
		},
	}
}

type smuxSession struct{ *smux.Session }

func (s smuxSession) Open() (stream, error)   { return s.OpenStream() }
func (s smuxSession) Accept() (stream, error) { return s.AcceptStream() }

func smuxMux() multiplexer {
	c := smux.DefaultConfig()
	c.Version = 2
	c.KeepAliveDisabled = true
	c.MaxReceiveBuffer = 4 * window
	c.MaxStreamBuffer = window
	return multiplexer{
		name: "smux",
		client: func(conn net.Conn) (session, error) {
			s, err := smux.Client(conn, c)
			return smuxSession{s}, err
		},
		server: func(conn net.Conn) (session, error) {
			s, err := smux.Server(conn, c)
			return smuxSession{s}, err
		},
	}
}
