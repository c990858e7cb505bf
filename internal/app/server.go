package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"culvert/internal/accesslog"
	"culvert/internal/admin"
	"culvert/internal/auth"
	"culvert/internal/config"
	"culvert/internal/control"
	"culvert/internal/dataplane"
	"culvert/internal/entrypoint"
	"culvert/internal/handover"
	"culvert/internal/mux"
	"culvert/internal/proxy"
)

// windowBudget is what the receive windows of all sessions may take together, beyond each stream's first 256 KiB.
const windowBudget = 256 << 20

// Server is a tunnel server. Use NewServer, Listen, Run, once each.
type Server struct {
	cfg     config.Server
	version Version
	log     *slog.Logger
	started time.Time
	ready   atomic.Bool

	verifier *auth.Verifier // nil if no credential is asked for
	registry *prometheus.Registry
	sessions *control.Server
	plane    *dataplane.DataPlane
	metrics  *proxy.Metrics
	pages    *proxy.HTTP // nil without HTTP

	records    *accesslog.Log
	reloading  sync.Mutex
	drainAsked chan struct{} // has room for one
	host       Host
	probes     admin.Probes
	successor  chan *handover.Successor // has room for one

	controlPort *controlPort
	web         *entrypoint.HTTP // visitors' HTTP; nil without
	health      *entrypoint.HTTP // nil without --health-addr
}

// NewServer assembles a server. It reads the token file, but opens nothing.
func NewServer(cfg config.Server, version Version, log *slog.Logger) (*Server, error) {
	return NewHosted(cfg, version, Host{}, log)
}

// NewHosted is NewServer for a program of its own.
func NewHosted(cfg config.Server, version Version, host Host, log *slog.Logger) (*Server, error) {
	s := &Server{
		cfg: cfg, version: version, log: log, registry: prometheus.NewRegistry(), drainAsked: make(chan struct{}, 1),
		host: host, successor: make(chan *handover.Successor, 1),
	}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if cfg.HasControl() && !cfg.InsecureNoAuth {
		v, err := auth.New(auth.Config{Shared: cfg.Token, File: cfg.Tokens, Log: log.With(subsystem, "auth")})
		if err != nil {
			return nil, err
		}
		s.verifier = v
	}
	s.metrics = proxy.NewMetrics(s.registry, proxy.Mode{HTTP: cfg.Mode.HasHTTP(), TCP: cfg.Mode.HasTCP()})
	if cfg.Mode.HasHTTP() {
		s.pages = proxy.NewHTTP(proxy.HTTPConfig{Metrics: s.metrics, Log: log.With(subsystem, "proxy")})
	}
	s.records = s.newRecords(cfg.Connections)
	s.plane = s.newPlane()
	controlMetrics := control.NewMetrics(s.registry, cfg.Mode.HasHTTP(), cfg.Mode.HasTCP())
	s.sessions = control.New(control.Config{
		Software:  version.Version,
		Verify:    s.verify,
		Admit:     admit,
		Publisher: s.plane,
		Ports:     cfg.AllowPorts,
		HTTP:      cfg.Mode.HasHTTP(),
		TCP:       cfg.Mode.HasTCP(),
		Budget:    mux.NewBudget(windowBudget),
		Metrics:   controlMetrics,
		Log:       log.With(subsystem, "control"),
	})
	s.registry.MustRegister(s.sessions.Collector())
	s.controlPort = &controlPort{server: s, metrics: controlMetrics}
	return s, nil
}

// verify is how clients and readers of the status prove who they are.
func (s *Server) verify(token string) (*auth.Bearer, error) {
	if s.verifier == nil {
		return auth.Anyone(), nil
	}
	return s.verifier.Verify(token)
}

// Listen opens the server's own ports, all or none.
func (s *Server) Listen() (err error) {
	defer func() {
		if err != nil {
			s.closePorts()
			s.records.Close()
		}
	}()
	if err := s.records.Open(); err != nil {
		return err
	}
	if s.pages != nil {
		addr := net.JoinHostPort(s.cfg.DataAddr, strconv.Itoa(int(s.cfg.Port)))
		s.web, err = entrypoint.ListenHTTP(entrypoint.HTTPConfig{
			Addr: addr, Allow: s.cfg.DataSources(), Log: s.log.With(subsystem, "entrypoint"),
			OnRefused: s.metrics.RefusedHTTP, Reception: s.reception(), Inherit: s.host.forVisitors(),
		}, s.pages)
		if err != nil {
			return s.asked(addr, "port", "data-addr").explain(err)
		}
		s.plane.ServeHTTPAt(s.web.Addr().String())
	}
	if s.cfg.HealthAddr != "" {
		s.health, err = entrypoint.ListenHTTP(entrypoint.HTTPConfig{
			Addr: s.cfg.HealthAddr, Log: s.log.With(subsystem, "entrypoint"), Reception: s.healthReception(), Inherit: s.host.atOnce(),
		}, admin.HealthHandler(s.probes.Watch(s.readiness)))
		if err != nil {
			return s.asked(s.cfg.HealthAddr, "health-addr", "health-addr").explain(err)
		}
	}
	if err := s.plane.Apply(planOf(s.cfg)); err != nil {
		return cannotOpen(&s.cfg, err)
	}
	if !s.cfg.HasControl() {
		return nil
	}
	return s.controlPort.listen()
}

// asked is an address that two settings have asked for.
func (s *Server) asked(addr, port, host string) binding {
	return binding{network: "tcp", addr: addr, askedPort: s.cfg.Asked(port), asked: s.cfg.Asked(host)}
}

func (s *Server) closePorts() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing is served yet: there is nothing to wait for
	for _, port := range []*entrypoint.HTTP{s.web, s.health} {
		if port != nil {
			_ = port.Shutdown(ctx)
		}
	}
	s.plane.Shutdown(ctx)
}

// ControlAddr is where clients connect, after Listen; nil if the server has no control port.
func (s *Server) ControlAddr() net.Addr {
	if s.controlPort.listener == nil {
		return nil
	}
	return s.controlPort.listener.Addr()
}

// HTTPAddr is where visitors of HTTP connect, after Listen; nil if the server carries no HTTP.
func (s *Server) HTTPAddr() net.Addr {
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}

var errNotReady = errors.New("not ready")

// readiness says whether balancers may send visitors. Services come with the data plane's configuration.
func (s *Server) readiness(service string) error {
	switch {
	case !s.ready.Load():
		return errNotReady
	default:
		return s.plane.Ready(service)
	}
}

// Run serves until the context ends or a part fails, and then ends in order. It returns the failure, if any, when
// nothing of the server is left.
func (s *Server) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	life, end := context.WithCancel(context.Background()) // of the parts, which end after ctx, in their turn
	defer end()
	var parts sync.WaitGroup
	run := func(name string, part func(context.Context) error) {
		parts.Go(func() {
			if err := part(life); err != nil {
				fail(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	s.started = time.Now()
	run("inherited sockets", s.host.Sockets.Run)
	run("data plane", s.plane.Run)
	if s.controlPort.listener != nil {
		run("control port", s.controlPort.run)
	}
	run("sessions", s.sessions.Run)
	parts.Go(func() { giveBackMemory(life) })
	run("access log", s.records.Run)
	if s.verifier != nil {
		run("token file", s.verifier.Run)
	}
	if s.web != nil {
		run("http port", s.web.Run)
	}
	if s.health != nil {
		run("health port", s.health.Run)
	}
	s.announce()
	s.ready.Store(true)
	if err := s.host.Sockets.Ready(); err != nil {
		s.log.Warn("the process before this one does not listen", "err", err)
	}
	s.host.Manager.Ready("serving")
	var steps []step
	select {
	case <-ctx.Done():
		steps = s.goDown()
	case <-s.drainAsked:
		steps = s.goDown()
	case next := <-s.successor:
		s.log.Info("another process takes over", "pid", next.PID(), "drain", s.cfg.DrainTimeout)
		steps = s.handOver(next, fail)
	}
	wind(s.log, append(steps,
		// No new visitors, while the open ones are served to their end through sessions that still stand.
		step{"drain visitors", s.cfg.DrainTimeout, s.drain},
		// Sessions now carry nothing; the control port and health come last, so that the end can be watched.
		step{"end sessions and ports", 5 * time.Second, func(ctx context.Context) {
			end()
			if s.controlPort.listener != nil {
				s.controlPort.shutdown(ctx)
			}
			if s.health != nil {
				_ = s.health.Shutdown(ctx)
			}
			parts.Wait()
		}},
	))
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// goDown begins an orderly end.
func (s *Server) goDown() []step {
	s.ready.Store(false)
	s.log.Info("going down", "drain", s.cfg.DrainTimeout)
	s.host.Manager.Stopping("going down")
	return []step{
		{"let balancers notice", s.cfg.ReadyGrace, s.lookGrace},
		// Clients before the visitors, so that none takes the end for a fault.
		{"tell clients", time.Second, s.sessions.GoAway},
	}
}

// drain closes the data plane to new visitors and waits for those that are there until the context ends.
func (s *Server) drain(ctx context.Context) {
	telling, told := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.tellOpen(telling) })
	defer watch.Wait()
	defer told()
	var wait sync.WaitGroup
	wait.Go(func() { s.plane.Shutdown(ctx) })
	if s.web != nil {
		wait.Go(func() {
			_ = s.web.Shutdown(ctx) // past the context it has cut them
			s.pages.Close()
		})
	}
	wait.Wait()
}

func (s *Server) announce() {
	attrs := []any{"version", s.version.Version, "mode", s.cfg.Mode}
	if addr := s.ControlAddr(); addr != nil {
		attrs = append(attrs, "control", addr.String())
	}
	if addr := s.HTTPAddr(); addr != nil {
		attrs = append(attrs, "http", addr.String())
	}
	s.log.Info("server is up", attrs...)
	if s.cfg.InsecureNoAuth {
		s.log.Warn("no credential is asked for: whoever reaches the control port may offer and see anything")
	}
	if trusted, assumed := s.cfg.Trusted(); assumed && s.cfg.ExpectsProxy() {
		s.log.Warn("every private address may say who a visitor is: name the load balancer's with --lb-trusted", "trusted", trusted)
	}
	if s.cfg.InsecurePlaintext {
		s.log.Warn("the control port is not encrypted: put a proxy in front that ends TLS")
	}
}

// status is what /status shows.
func (s *Server) status() admin.Status {
	hostname, _ := os.Hostname() // "" says as much as an error would
	st := admin.Status{Info: admin.Info{
		Version: s.version.Version, SHA: s.version.SHA, Mode: string(s.cfg.Mode), StartTime: s.started, Hostname: hostname,
	}}
	for _, c := range s.sessions.Clients() {
		client := admin.Client{
			ClientID: c.ID, RemoteAddr: c.RemoteAddr, Since: c.Since, Upstreams: c.Upstreams,
			Instance: c.Instance, Labels: c.Labels, RTTMillis: float64(c.RTT.Microseconds()) / 1000,
			Links: c.Links, Streams: c.Streams, Resumes: c.Resumes, Reconnects: c.Reconnects,
		}
		for _, t := range c.Tunnels {
			client.Tunnels = append(client.Tunnels, admin.Tunnel{Name: t.Name, Address: t.Address, Down: t.Down})
		}
		st.Clients = append(st.Clients, client)
	}
	s.addPlane(&st)
	return st
}

// addPlane adds what a file says and what is diverted. What clients offer is with the clients: there may be very many, and the
// API has them.
func (s *Server) addPlane(st *admin.Status) {
	plane := s.plane.State()
	offered := func(name string) bool { return strings.Contains(name, "/") } // no name of a file has one
	st.Entrypoints = slices.DeleteFunc(plane.Entrypoints, func(e admin.Entrypoint) bool { return offered(e.Name) })
	st.Upstreams = slices.DeleteFunc(plane.Upstreams, func(u admin.Upstream) bool { return offered(u.Name) })
	st.Diverts = operator{s}.Diverts()
}
