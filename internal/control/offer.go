package control

import (
	"errors"
	"fmt"

	"culvert/internal/auth"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// publish decides on each of some offers of a client's and makes the accepted ones reachable.
func (s *Server) publish(c *session, offers []tunnel.Offer) []tunnel.Answer {
	answers := make([]tunnel.Answer, len(offers))
	seen := make(map[tunnel.Name]bool)
	for i, offer := range offers {
		answers[i].Tunnel = offer.Tunnel
		address, err := s.publishOne(c, offer, seen)
		if err != nil {
			c.log.Warn("offer refused", "tunnel", offer.Tunnel, "reason", err)
			s.cfg.Metrics.refusedOffers.Inc()
			answers[i].Refused = err.Error()
			continue
		}
		answers[i].Address = address
	}
	s.cfg.Publisher.Settle()
	return answers
}

func (s *Server) publishOne(c *session, offer tunnel.Offer, seen map[tunnel.Name]bool) (address string, err error) {
	name, err := tunnel.ParseName(offer.Tunnel)
	if err != nil {
		return "", err
	}
	if seen[name] {
		return "", errors.New("offered twice by this client")
	}
	seen[name] = true
	if err := s.carries(name); err != nil {
		return "", err
	}
	if err := offer.Check(); err != nil {
		return "", err
	}
	m := &member{session: c, tunnel: name, action: offering(name), protocol: protocolOf(name, offer)}
	o := Offered{Name: name, Member: m, Offer: offer}
	var divert *live
	if name.Kind() == tunnel.Divert {
		if divert, err = s.divertOf(c, name, offer); err != nil {
			return "", err
		}
		m.action = auth.Divert(divert.Entrypoint)
		o.Divert = &divert.Divert
		o.End = func(reason string) { s.endDivert(divert, ending{label: "server", text: reason, tell: true}) }
		o.MayDivert = func(entrypoint string) bool { return c.bearer.Permit(auth.Divert(entrypoint)) == nil }
	}
	m.down.Store(offer.Down != "")
	if err := m.Permitted(); err != nil {
		return "", fmt.Errorf("%w; a token that may is made with culvert token new --%s", err, granting(name.Kind()))
	}
	p, err := s.cfg.Publisher.Publish(o)
	if err != nil {
		return "", err
	}
	if err := s.keep(c, published{name, offer, m, p}, divert); err != nil {
		p.Withdraw()
		return "", err
	}
	return p.Address(), nil
}

// keep puts down that the offer is published, unless that has come to nothing meanwhile.
func (s *Server) keep(c *session, p published, divert *live) error {
	from := c.address() // for the log
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.withdrawn: // it was evicted
		return errReplaced
	case divert != nil && divert.ended != nil:
		return errors.New(divert.ended.text)
	case divert != nil:
		s.begun(divert, from)
	}
	c.published = append(c.published, p)
	return nil
}

// carries says whether this server carries tunnels like this one at all.
func (s *Server) carries(name tunnel.Name) error {
	switch name.Kind() {
	case tunnel.HTTP:
		if !s.cfg.HTTP {
			return errors.New("this server carries TCP only: use culvert server or culvert http server")
		}
	case tunnel.TCP, tunnel.UDP: // which go together
		if !s.cfg.TCP {
			return errors.New("this server carries HTTP only: use culvert server or culvert tcp server")
		}
		if !s.cfg.Ports.Contains(name.Port()) {
			return fmt.Errorf("port %d is not among the ports that this server opens for clients: %s", name.Port(), s.cfg.Ports)
		}
	case tunnel.TLS:
		if !s.cfg.TCP {
			return errors.New("this server carries HTTP only: use culvert server or culvert tcp server")
		}
	case tunnel.Private, tunnel.Divert: // whether anything leads there is the publisher's to know
	}
	return nil
}

// offering is what a credential must permit for a client to offer the tunnel, and for each of its streams.
func offering(name tunnel.Name) auth.Action {
	switch name.Kind() {
	case tunnel.HTTP, tunnel.TLS:
		return auth.OfferHost(name.Host())
	case tunnel.TCP, tunnel.UDP: // a grant of a port is for both
		return auth.OfferPort(name.Port())
	default:
		return auth.OfferName(name.Private())
	}
}

func protocolOf(name tunnel.Name, offer tunnel.Offer) upstream.Protocol {
	switch {
	case name.Kind() != tunnel.HTTP:
		return upstream.Raw
	case offer.Protocol == "h2c":
		return upstream.H2C
	default:
		return upstream.HTTP1
	}
}

// granting is the flag of culvert token new for what a tunnel needs.
func granting(k tunnel.Kind) string {
	switch k {
	case tunnel.TCP, tunnel.UDP:
		return "ports"
	case tunnel.Private:
		return "names"
	case tunnel.Divert:
		return "divert"
	default:
		return "hosts"
	}
}
