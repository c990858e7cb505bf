package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"culvert/internal/admin"
	"culvert/internal/auth"
	"culvert/internal/control"
	"culvert/internal/cork"
	"culvert/internal/entrypoint"
	"culvert/internal/pki"
	carrier "culvert/internal/tunnel/tls"
	"culvert/internal/tunnel/ws"
)

// preAuthTimeout is what a stranger gets from connect to credential, over all stages together.
const preAuthTimeout = 5 * time.Second

// controlPort is the port that clients connect to, which also serves the status, metrics and health.
type controlPort struct {
	server   *Server
	metrics  *control.Metrics
	listener net.Listener
	http     *http.Server
	door     *door
}

// listen opens the port and what its TLS needs.
func (p *controlPort) listen() error {
	cfg := p.server.cfg
	certificate, ca, err := p.certificate()
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	addr := net.JoinHostPort(cfg.ControlAddr, strconv.Itoa(int(cfg.ControlPort)))
	l, err := p.server.host.Sockets.Listen(net.ListenConfig{}, "tcp", addr)
	if err != nil {
		return p.server.asked(addr, "control-port", "control-addr").explain(err)
	}
	p.door = newDoor(l)
	l = entrypoint.NewGuard(p.door, entrypoint.GuardConfig{
		Allow: cfg.ControlSources(), Deadline: preAuthTimeout,
		MaxUnauthenticated: cfg.MaxUnauthenticated, MaxPerSource: cfg.MaxUnauthenticatedPerSource,
		Log: p.server.log.With(subsystem, "entrypoint"), OnRefused: p.metrics.CountRefused,
	})
	l = cork.Listener{Listener: l}
	if certificate != nil {
		l = entrypoint.NewTLS(l, entrypoint.TLSConfig{
			TLS: &tls.Config{
				GetCertificate: certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1", carrier.Protocol},
				DynamicRecordSizingDisabled: true,
			},
			Log: p.server.log.With(subsystem, "entrypoint"), OnRefused: p.metrics.CountRefused,
		})
		l = entrypoint.NewSplit(l, carrier.Protocol, p.take)
	}
	p.listener = l
	p.http = &http.Server{
		Handler:           p.handler(ca),
		ReadHeaderTimeout: preAuthTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 alone: it upgrades
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:          slog.NewLogLogger(p.server.log.With(subsystem, "entrypoint").Handler(), slog.LevelDebug),
	}
	entrypoint.WatchHeads(p.http, func(source net.Addr) {
		p.server.log.Debug("control connection refused", subsystem, "entrypoint", "source", source, "reason", entrypoint.RefusedHead)
		p.metrics.CountRefused(entrypoint.RefusedHead)
	})
	return nil
}

// certificate gives where the port's certificate comes from, nil for none, and the answer to clients that ask for the
// server's own authority, nil if it has none.
func (p *controlPort) certificate() (get func(*tls.ClientHelloInfo) (*tls.Certificate, error), ca http.Handler, err error) {
	cfg := p.server.cfg
	switch {
	case cfg.AutoTLS:
		sans := cfg.AutoTLSSAN
		if len(sans) == 0 {
			sans = pki.DefaultSANs()
		}
		authority, err := pki.OpenAuthority(pki.Config{Dir: cfg.AutoTLSPath, SANs: sans, Log: p.server.log.With(subsystem, "pki")})
		if err != nil {
			return nil, nil, err
		}
		return authority.GetCertificate, pki.CAHandler(authority.CA(), p.digest), nil
	case cfg.TLSCert != "":
		pair, err := pki.OpenKeyPair(cfg.TLSCert, cfg.TLSKey, p.server.log.With(subsystem, "pki"))
		if err != nil {
			return nil, nil, err
		}
		return pair.GetCertificate, nil, nil
	default:
		return nil, nil, nil
	}
}

// refusedToken is the reason of a connection of bare TLS that showed no good token in time.
const refusedToken = "token"

// take sees a client that came by bare TLS to its session.
func (p *controlPort) take(c *tls.Conn) {
	source := c.RemoteAddr()
	if err := p.server.sessions.ServeTLS(c, func() { entrypoint.Admit(c) }); err != nil {
		p.server.log.Debug("control connection refused", subsystem, "entrypoint", "source", source, "reason", refusedToken, "err", err)
		p.metrics.CountRefused(refusedToken)
	}
}

// digest is what the bootstrap proof of a token is made with.
func (p *controlPort) digest(id string) ([32]byte, bool) {
	if p.server.verifier == nil {
		return [32]byte{}, false
	}
	return p.server.verifier.Digest(id)
}

func (p *controlPort) handler(ca http.Handler) http.Handler {
	s := p.server
	routes := http.NewServeMux()
	routes.Handle(ws.Path, s.sessions)
	if ca != nil {
		routes.Handle(pki.CAPath, closing(ca))
	}
	routes.Handle("/", admin.Handler(admin.Config{
		Status:    s.status,
		Authorize: func(token string) (admin.Bearer, error) { return bearer(s.verify(token)) },
		Admitted:  admit,
		Ready:     s.probes.Watch(s.readiness),
		Gatherer:  s.registry,

		DataPlane:   s.plane,
		Operator:    operator{s},
		Diverts:     operator{s},
		Connections: s.records.Find,
		Log:         s.log.With(subsystem, "api"),
	}))
	return admin.Counted(bodiless(routes), p.metrics.CountRequest)
}

// bearer keeps a nil *auth.Bearer from becoming an interface that is not nil.
func bearer(b *auth.Bearer, err error) (admin.Bearer, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

// bodiless refuses requests with a body, which none of this port has but those to the API, before the server waits for the
// rest of it.
func bodiless(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 || strings.HasPrefix(r.URL.Path, admin.APIPath) {
			h.ServeHTTP(w, r)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // a failure means that it is closed already
		w.Header().Set("Connection", "close")
		http.Error(w, "no request to this port has a body", http.StatusRequestEntityTooLarge)
	})
}

// closing ends the connection after an answer to a stranger, who holds one of few places.
func closing(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		h.ServeHTTP(w, r)
	})
}

type connKey struct{}

// admit lifts the limits of strangers from the connection of a request whose sender is known.
func admit(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		entrypoint.Admit(c)
	}
}

func (p *controlPort) run(context.Context) error {
	if err := p.http.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// leave stops accepting, for another process does. Who was accepted is served.
func (p *controlPort) leave() {
	if p.door != nil {
		p.door.leave()
	}
}

func (p *controlPort) shutdown(ctx context.Context) {
	if p.http.Shutdown(ctx) != nil {
		_ = p.http.Close()
	}
}
