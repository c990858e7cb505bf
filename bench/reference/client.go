package reference

import (
	"context"
	"crypto/tls"
	"net/url"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"culvert/internal/tunnel/ws"
)

// Client is the private end.
type Client struct {
	Server  string // host:port
	TLS     *tls.Config
	Service string // host:port
}

// Run connects and serves the server's streams until the session ends.
func (c Client) Run(ctx context.Context) error {
	d := ws.Dial{URL: &url.URL{Scheme: "wss", Host: c.Server, Path: ws.Path}, TLS: c.TLS, Timeout: 10 * time.Second}
	conn, err := d.Connect(ctx)
	if err != nil {
		return err
	}
	session, err := yamux.Client(conn, settings(), nil)
	if err != nil {
		return err
	}
	buffers := newBuffers()
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return err
		}
		go func() {
			service, err := dial(c.Service)
			if err != nil {
				_ = stream.Reset()
				return
			}
			relay(service, stream, buffers)
		}()
	}
}
