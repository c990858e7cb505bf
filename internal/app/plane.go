package app

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"

	"culvert/internal/config"
	"culvert/internal/config/plan"
	"culvert/internal/dataplane"
	"culvert/internal/proxy"
)

// newPlane makes the data plane that the configuration asks for, without anything in it.
func (s *Server) newPlane() *dataplane.DataPlane {
	plane := dataplane.New(dataplane.Config{
		Addr:       s.cfg.DataAddr,
		Reserved:   s.cfg.OwnPorts(),
		Sources:    s.cfg.DataSources(),
		Accept:     s.cfg.Accept(),
		Emit:       s.cfg.Emission(),
		Inherit:    s.host.forVisitors(),
		HTTP:       s.pages,
		Metrics:    s.metrics,
		UDPMetrics: proxy.NewUDPMetrics(s.registry),
		Counters:   dataplane.NewCounters(s.registry),
		Records:    s.records,
		Log:        s.log.With(subsystem, "proxy"),
	})
	s.registry.MustRegister(plane.Collector())
	return plane
}

// planOf is the data plane of the file, with what flags add to it. Who may connect is the same for all entrypoints that do not
// say so themselves.
func planOf(cfg config.Server) plan.Plan {
	p := cfg.Plan
	p.Entrypoints = slices.Clone(p.Entrypoints)
	if cfg.TLSPort != 0 {
		addr := net.JoinHostPort(cfg.DataAddr, strconv.Itoa(int(cfg.TLSPort)))
		if i := slices.IndexFunc(p.Entrypoints, func(e plan.Entrypoint) bool { return e.Name == plan.TLSEntrypoint }); i >= 0 {
			p.Entrypoints[i].Addr = addr
		} else {
			e := plan.NewEntrypoint(plan.TLSEntrypoint, plan.TLS, addr)
			e.ProxyProtocol = cfg.Accept()
			p.Entrypoints = append(p.Entrypoints, e)
		}
	}
	for i := range p.Entrypoints {
		if e := &p.Entrypoints[i]; len(e.Allow) == 0 {
			e.Allow = cfg.DataSources()
		}
	}
	return p
}

// errNoFile means that there is nothing to read again.
var errNoFile = errors.New("the server runs without a configuration file: start it with --config")

// Reload reads the configuration file again and changes the data plane to what it says, or leaves all as it is and says what is
// wrong. The warnings are of what has no effect, or none yet. All of it is logged, too.
func (s *Server) Reload() (warnings []string, err error) {
	if s.cfg.Config == "" {
		return nil, errNoFile
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	next, changed, err := s.cfg.Reread()
	if err == nil {
		next.Access = s.cfg.Access // like all settings it waits for the next start
		if err = s.plane.Apply(planOf(next)); err != nil {
			err = cannotOpen(&next, err)
		}
	}
	if err != nil {
		s.log.Error("configuration refused, the old one stays", "file", s.cfg.Config, "err", err)
		return nil, err
	}
	for _, w := range next.Warnings {
		s.log.Warn("configuration", "warning", w.Error())
		warnings = append(warnings, w.Error())
	}
	if len(changed) > 0 {
		s.log.Warn("some changes wait for the next start", "keys", changed)
		warnings = append(warnings, "what has changed of "+strings.Join(changed, ", ")+" waits for the next start")
	}
	s.log.Info("configuration is in effect", "file", s.cfg.Config, "entrypoints", len(next.Plan.Entrypoints), "upstreams", len(next.Plan.Upstreams))
	return warnings, nil
}

// HangUp is what SIGHUP asks for: the configuration and the access log are read and opened anew. What is wrong is logged.
func (s *Server) HangUp() {
	s.records.Reopen()
	if _, err := s.Reload(); errors.Is(err, errNoFile) {
		s.log.Info("nothing to reload", "reason", err)
	}
}
