package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"culvert/internal/proxyproto"
)

// StaticConfig describes a member with a fixed address.
type StaticConfig struct {
	Name string // for logs and status; Address if empty
	// Network and Address are what to dial: "tcp" or "udp" with host:port, or "unix" with a path. A visit of datagrams is
	// dialled as "udp" where that is "tcp".
	Network, Address string
	Protocol         Protocol
	// TLS, if set, is spoken to the service. Its ServerName is the host of Address if empty.
	TLS *tls.Config
	// ConnectTimeout bounds name lookup, connecting and TLS handshake together. If zero, it is 3 s, and connecting takes no
	// longer than the visit's patience: of who has set no time, nobody is to wait for a black hole while there are others.
	ConnectTimeout time.Duration
	// ProxyProtocol is the PROXY header that the service gets, in place of what a visit wishes. It goes out in one write
	// with the visitor's first bytes if these are there already, and before a TLS handshake.
	ProxyProtocol proxyproto.Emission
}

// Static is a member with a fixed address. It connects before any visitor byte is sent, so another member can be tried
// after each of its failures.
type Static struct {
	cfg    StaticConfig
	dialer net.Dialer     // without a timeout
	direct netip.AddrPort // the address that needs no dialer; the zero AddrPort if there is none
	local  bool           // it is on this machine

	patience bool // of a visit counts
}

// NewStatic makes a member; nothing is looked up or opened.
func NewStatic(cfg StaticConfig) *Static {
	if cfg.Name == "" {
		cfg.Name = cfg.Address
	}
	patience := cfg.ConnectTimeout <= 0
	if patience {
		cfg.ConnectTimeout = 3 * time.Second
	}
	if cfg.TLS != nil && cfg.TLS.ServerName == "" {
		cfg.TLS = cfg.TLS.Clone()
		cfg.TLS.ServerName = cfg.Address
		if host, _, err := net.SplitHostPort(cfg.Address); err == nil {
			cfg.TLS.ServerName = host
		}
	}
	s := &Static{cfg: cfg, dialer: net.Dialer{ControlContext: connectNow}, patience: patience}
	addr, _ := netip.ParseAddrPort(cfg.Address) // the zero AddrPort for a name or a path
	if cfg.TLS == nil && cfg.Protocol == Raw && cfg.Network == "tcp" && addr.IsValid() && addr.Addr().Zone() == "" && runtime.GOOS == "linux" {
		s.direct = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	}
	s.local = addr.Addr().Unmap().IsLoopback() || strings.HasPrefix(cfg.Address, "localhost:")
	if s.local {
		s.dialer.KeepAlive = -1 // this machine does not vanish silently, and asking costs system calls
	}
	return s
}

// Name is the member's name.
func (s *Static) Name() string { return s.cfg.Name }

// Protocol is what the service speaks.
func (s *Static) Protocol() Protocol { return s.cfg.Protocol }

// Dial connects.
func (s *Static) Dial(ctx context.Context, v *Visit) (Dialed, error) {
	switch {
	case v.Datagrams:
		return s.dialDatagrams(ctx, v)
	case s.cfg.TLS != nil:
		return s.dialTLS(ctx, v)
	}
	c, err := s.connect(ctx, v.Patience)
	if err != nil {
		return Dialed{}, s.failure(ctx, err)
	}
	sent, err := s.introduce(c, v, v.First)
	if err != nil {
		_ = c.Close()
		failed := s.failure(ctx, err)
		failed.MaybeSent = sent
		return Dialed{}, failed
	}
	return Dialed{Conn: FromTCP(c), FirstSent: sent}, nil
}

// introduce writes the PROXY header, if there is one to write, and with it the visitor's first bytes if they are there.
// Readers of the header that are in wide use look at no more than the first segment.
func (s *Static) introduce(c net.Conn, v *Visit, first *First) (firstSent bool, err error) {
	header := v.header(s.cfg.ProxyProtocol)
	if len(header) == 0 {
		return false, nil
	}
	if first != nil {
		select {
		case <-first.Ready():
			p, _ := first.Bytes()
			header, firstSent = append(header, p...), len(p) > 0
		default:
		}
	}
	_ = c.SetWriteDeadline(time.Now().Add(s.cfg.ConnectTimeout)) // a new connection takes this much without waiting
	if _, err := c.Write(header); err != nil {
		return firstSent, fmt.Errorf("write the PROXY header to %s: %w", s.cfg.Address, err)
	}
	return firstSent, c.SetWriteDeadline(time.Time{})
}

func (s *Static) dialTLS(ctx context.Context, v *Visit) (Dialed, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	c, err := s.connect(ctx, v.Patience)
	if err != nil {
		return Dialed{}, s.failure(ctx, err)
	}
	if _, err := s.introduce(c, v, nil); err != nil {
		_ = c.Close()
		return Dialed{}, s.failure(ctx, err)
	}
	t := tls.Client(c, s.cfg.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return Dialed{}, s.failure(ctx, fmt.Errorf("tls handshake with %s: %w", s.cfg.Address, err))
	}
	return Dialed{Conn: &tlsConn{Conn: t, under: c}}, nil
}

// connect takes no longer than the connect timeout and, if it counts, the patience.
func (s *Static) connect(ctx context.Context, patience time.Duration) (halfCloser, error) {
	d := s.dialer
	d.Timeout = s.cfg.ConnectTimeout
	if s.patience && patience > 0 {
		d.Timeout = min(d.Timeout, patience)
	}
	if s.direct.IsValid() {
		return dialSocket(ctx, s.direct, time.Now().Add(d.Timeout), s.local)
	}
	c, err := d.DialContext(ctx, s.cfg.Network, s.cfg.Address)
	if err != nil {
		return nil, err
	}
	h, ok := c.(halfCloser)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("dial %s %s: a network without half-close", s.cfg.Network, s.cfg.Address)
	}
	return h, nil
}

func (s *Static) failure(ctx context.Context, err error) *DialError {
	return &DialError{Member: s.cfg.Name, Reason: reasonOfConnect(ctx, err), Err: err}
}

// tlsConn is a TLS connection to a service. An end without TLS's own notice is an error, so a cut is never an end.
type tlsConn struct {
	*tls.Conn
	under net.Conn
}

func (c *tlsConn) Reset() error {
	abortive(c.under)
	return c.under.Close() // not the Conn's own Close, which would say goodbye first
}
