package app

import "culvert/internal/entrypoint"

// reception is how visitors of an entrypoint are received behind a load balancer; nil if there is none in front.
func (s *Server) reception() *entrypoint.Reception {
	if !s.cfg.ExpectsProxy() {
		return nil
	}
	trusted, _ := s.cfg.Trusted()
	return &entrypoint.Reception{Proxy: &entrypoint.ProxyPolicy{Trusted: trusted}}
}

// healthReception takes a PROXY header of a load balancer's health check, which some send there too and none need: the
// address is used for nothing.
func (s *Server) healthReception() *entrypoint.Reception {
	trusted, _ := s.cfg.Trusted()
	return &entrypoint.Reception{Proxy: &entrypoint.ProxyPolicy{Trusted: trusted, Optional: true}}
}
