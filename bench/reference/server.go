package reference

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"culvert/internal/cork"
	"culvert/internal/tunnel/ws"
)

// Server is the public end.
type Server struct {
	Certificate tls.Certificate
	Tunnel      net.Listener // the client connects here
	Public      net.Listener // visitors connect here, once the client has come
}

// Serve takes one client and serves visitors until something fails.
func (s Server) Serve() error {
	sessions := make(chan *yamux.Session, 1)
	failed := make(chan error, 2)
	server := &http.Server{
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{s.Certificate}, MinVersion: tls.VersionTLS13,
			NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true,
		},
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := ws.Upgrade(w, r)
			if err != nil {
				return // the client was told
			}
			session, err := yamux.Server(c, settings(), nil)
			if err != nil {
				failed <- err
				return
			}
			sessions <- session
		}),
	}
	go func() { failed <- server.ServeTLS(cork.Listener{Listener: s.Tunnel}, "", "") }()
	select {
	case session := <-sessions:
		go func() { failed <- s.visitors(session) }()
	case err := <-failed:
		return err
	}
	return <-failed
}

func (s Server) visitors(session *yamux.Session) error {
	buffers := newBuffers()
	for {
		c, err := s.Public.Accept()
		if err != nil {
			return err
		}
		go func() {
			stream, err := session.OpenStream(context.Background())
			if err != nil {
				c.Close()
				return
			}
			relay(c.(*net.TCPConn), stream, buffers)
		}()
	}
}
