package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"culvert/internal/mux"
	"culvert/internal/proxy"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// local is what stands behind one tunnel: it takes a stream and sees it to its end. serve returns at once; over is called
// when the stream is through.
type local interface {
	serve(ctx context.Context, st *mux.Stream, o *tunnel.Open, over func(error))
}

// newLocal makes the local end of a tunnel. It opens nothing.
func newLocal(u Upstream, cfg Config) (local, error) {
	switch u.Scheme {
	case SchemeFile:
		return newFolder(u.Address, cfg.Log)
	case SchemeHTTPS:
		config, err := serviceTLS(u)
		if err != nil {
			return nil, err
		}
		return newService(u, config), nil
	default:
		s := newService(u, nil)
		s.proxyProtocol = cfg.ProxyProtocol
		return s, nil
	}
}

// serviceTLS is how a service of HTTPS is spoken to.
func serviceTLS(u Upstream) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(u.Address)
	if err != nil {
		return nil, err
	}
	return &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
}

// service is a local address.
type service struct {
	upstream *upstream.Upstream
	carrier  *proxy.Carrier
	// datagrams says that the service can be sent datagrams: that it has a host and a port, and is not known to speak HTTP.
	datagrams bool
	// proxyProtocol is the PROXY header that the service gets in place of what the server wishes; nil for that.
	proxyProtocol *proxyproto.Version
}

func newService(u Upstream, tlsConfig *tls.Config) service {
	up := upstream.New(upstream.Config{Name: u.Tunnel.String(), Retries: -1})
	up.Add(upstream.Placed{Member: upstream.NewStatic(upstream.StaticConfig{
		Name: u.Spec, Network: u.Network, Address: u.Address, TLS: tlsConfig, ConnectTimeout: connectTimeout,
	})})
	return service{
		upstream: up, carrier: new(proxy.Carrier),
		datagrams: u.Scheme == SchemeUDP || u.Scheme == SchemeTCP && u.Network == "tcp",
	}
}

func (s service) serve(ctx context.Context, st *mux.Stream, o *tunnel.Open, over func(error)) {
	if o.Datagrams {
		go func() { over(s.serveDatagrams(ctx, st, o)) }()
		return
	}
	var place *upstream.Place
	s.carrier.Carry(ctx, func() (a, b upstream.Conn, err error) {
		var d upstream.Dialed
		d, err = s.dial(ctx, st, o)
		place = d.Place
		return st, d.Conn, err
	}, nil, func(err error) {
		place.Release()
		over(err)
	})
}

// dial connects to the service and tells the server what came of it.
func (s service) dial(ctx context.Context, st *mux.Stream, o *tunnel.Open) (upstream.Dialed, error) {
	d, err := s.upstream.Dial(ctx, &upstream.Visit{ID: o.ID, Source: o.Source, Destination: o.Destination, Host: o.Host})
	if err != nil {
		return d, errors.Join(err, st.Refuse(uint8(refusal(err)), err.Error()))
	}
	if err := st.Confirm(); err != nil {
		_ = d.Conn.Reset()
		_ = st.Reset()
		return d, fmt.Errorf("confirm: %w", err)
	}
	if err := s.introduce(st, d.Conn, o); err != nil { // too late for a refusal, which would certify that nothing arrived
		_ = d.Conn.Reset()
		_ = st.Reset()
		return d, err
	}
	return d, nil
}

// firstBytes is how much of what the visitor has said already goes out with a PROXY header.
const firstBytes = 4 << 10

// introduce writes the PROXY header to the service, if it is to get one, and in the same write what is there already of
// the visitor's bytes: readers of the header that are in wide use look at no more than the first segment.
func (s service) introduce(st *mux.Stream, service upstream.Conn, o *tunnel.Open) error {
	e := s.emission(o)
	if e.Version == proxyproto.Off {
		return nil
	}
	h := e.Header(o.Source, o.Destination, cmp.Or(o.UniqueID, o.ID), o.Host, nil)
	p := h.AppendTo(make([]byte, 0, firstBytes), e.Version)
	room := p[len(p):cap(p)]
	_ = st.SetReadDeadline(time.Unix(1, 0)) // what is there is read nevertheless, and nothing is waited for
	n, _ := st.Read(room)                   // an error comes again
	_ = st.SetReadDeadline(time.Time{})
	_ = service.SetWriteDeadline(time.Now().Add(connectTimeout)) // a new connection takes this much without waiting
	if _, err := service.Write(p[:len(p)+n]); err != nil {
		return fmt.Errorf("write the PROXY header: %w", err)
	}
	return service.SetWriteDeadline(time.Time{})
}

// emission is the PROXY header that the service gets for the connection. HTTP says the same in its own words.
func (s service) emission(o *tunnel.Open) proxyproto.Emission {
	switch kind := o.Tunnel.Kind(); {
	case kind == tunnel.HTTP:
		return proxyproto.Emission{}
	case s.proxyProtocol == nil:
		return o.ProxyProtocol
	case *s.proxyProtocol == o.ProxyProtocol.Version: // with what else it is to say
		return o.ProxyProtocol
	default:
		return proxyproto.Emission{Version: *s.proxyProtocol}
	}
}

// refusal is how a failed local dial is told to the server.
func refusal(err error) tunnel.Reason {
	switch upstream.ReasonOf(err) {
	case upstream.Refused:
		return tunnel.Refused
	case upstream.TimedOut:
		return tunnel.TimedOut
	case upstream.Overloaded:
		return tunnel.Overloaded
	default:
		return tunnel.Unreachable
	}
}

// handle sees one connection through the client. It returns at once; over is called when the connection is through.
func (c *Client) handle(ctx context.Context, st *mux.Stream, o *tunnel.Open, over func()) {
	l := c.local(st, o)
	if l == nil {
		over()
		return
	}
	if opened := c.cfg.Watch.Opened; opened != nil {
		opened(o)
	}
	l.serve(ctx, st, o, c.handled(ctx, o, over))
}

// local finds what stands behind the tunnel; nil if nothing does, and then the stream is refused.
func (c *Client) local(st *mux.Stream, o *tunnel.Open) local {
	l, ok := c.locals[o.Tunnel]
	if !ok {
		_ = st.Refuse(uint8(tunnel.NoSuchTunnel), "this client does not offer "+o.Tunnel.String())
		c.cfg.Log.Warn("server asked for a tunnel that is not offered", "conn", o.ID, "tunnel", o.Tunnel)
	}
	return l
}

// handled is what a connection calls that is through. One of everybody's connections holds no more for that than it must.
func (c *Client) handled(ctx context.Context, o *tunnel.Open, over func()) func(error) {
	unserved := c.cfg.Watch.Unserved
	if unserved == nil && !c.cfg.Log.Enabled(ctx, slog.LevelDebug) {
		return func(error) { over() }
	}
	begun := time.Now()
	return func(err error) {
		var d *upstream.DialError
		if unserved != nil && errors.As(err, &d) && d.Reason != upstream.Canceled {
			unserved(d.Reason)
		}
		c.cfg.Log.Debug("connection ended", "conn", o.ID, "tunnel", o.Tunnel, "source", o.Source,
			"after", time.Since(begun).Round(time.Microsecond), "err", err)
		over()
	}
}
