package proxy

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync/atomic"
	"time"

	"culvert/internal/hostname"
	"culvert/internal/router"
	"culvert/internal/upstream"
)

// HTTPConfig is what an HTTP needs.
type HTTPConfig struct {
	Metrics *Metrics // may be nil
	Log     *slog.Logger
	// DialTimeout bounds one member's dial; 30 s if zero.
	DialTimeout time.Duration
}

// HTTP carries requests: by host and path to an upstream, by the balancer's order to a member, over connections that are
// kept per member. It is an http.Handler and safe for concurrent use. Close ends it.
type HTTP struct {
	cfg     HTTPConfig
	table   atomic.Pointer[table]
	pools   pools
	reverse httputil.ReverseProxy
}

// table is what a request is routed by; it is replaced whole.
type table struct {
	routes    *router.HTTP
	upstreams map[string]*upstream.Upstream
}

// NewHTTP makes an HTTP without routes; it opens nothing.
func NewHTTP(cfg HTTPConfig) *HTTP {
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 30*time.Second)
	h := &HTTP{cfg: cfg}
	h.table.Store(&table{})
	h.pools.dial = h.dial
	h.reverse = httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     &h.pools,
		FlushInterval: -1, // what a service says now, the visitor hears now
		BufferPool:    bufferPool{},
		ErrorHandler:  h.answerError,
		ErrorLog:      slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return h
}

// SetRoutes replaces the routes and the upstreams that they name. A route whose upstream has no member answers 503, what no
// route matches 404. Requests under way keep what they began with. The map must not be changed afterwards.
func (h *HTTP) SetRoutes(routes *router.HTTP, upstreams map[string]*upstream.Upstream) {
	h.table.Store(&table{routes, upstreams})
}

// Forget closes the member's idle connections and drops what is kept for it. Requests under way go on.
func (h *HTTP) Forget(m upstream.Member) { h.pools.forget(m) }

// Close closes all idle connections. Requests under way go on.
func (h *HTTP) Close() { h.pools.close() }

// flow is one request on its way: what is known of it beside the request itself.
type flow struct {
	visit    upstream.Visit
	admitted upstream.Admitted // the candidates, and the place that the request has at one of them
	host     string            // the pattern that matched
	in       *http.Request     // as the visitor sent it
	body     *heldBody         // nil if there is none
}

type flowKey struct{}

func flowOf(ctx context.Context) *flow { return ctx.Value(flowKey{}).(*flow) }

// ServeHTTP answers one request.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	f := &flow{in: r, visit: upstream.Visit{ID: requestID(r.Header), Source: remote(r), Destination: local(r)}}
	rec := &recorder{ResponseWriter: w, metrics: h.cfg.Metrics}
	// Deferred, because a response that breaks off ends in a panic that the server understands.
	defer func() { h.cfg.Metrics.request(rec.status(), f.host, r.Method, time.Since(start)) }()

	if ref := h.route(f); ref != 0 {
		h.answer(rec, f, ref)
		return
	}
	defer func() { f.admitted.Place.Release() }() // of an upgraded connection too: it ends before this returns
	out := r.WithContext(context.WithValue(r.Context(), flowKey{}, f))
	if r.ContentLength != 0 {
		f.body = &heldBody{metrics: h.cfg.Metrics}
		if r.ProtoMajor == 1 {
			// A service may answer while it still reads; without this the server would throw the rest of the body away
			// as soon as the answer begins.
			_ = http.NewResponseController(w).EnableFullDuplex()
		}
	}
	h.reverse.ServeHTTP(rec, out)
}

// route finds the candidates for a request, or says how to refuse it; zero is not at all.
func (h *HTTP) route(f *flow) refusal {
	r := f.in
	if r.Method == http.MethodConnect {
		return refuseConnect
	}
	host, err := hostname.Canonical(r.Host)
	if err != nil {
		return refuseHost
	}
	t := h.table.Load()
	if t.routes == nil {
		return refuseUnknown
	}
	route, ok := t.routes.Match(host, r.URL.Path)
	if !ok {
		return refuseUnknown
	}
	f.host = route.Host.String()
	f.visit.Host = host
	u := t.upstreams[route.Upstream]
	if u == nil {
		h.cfg.Metrics.failedHTTPOpen(upstream.NoMember)
		return refuseEmpty
	}
	if f.admitted, err = u.Admit(r.Context(), &f.visit); err != nil {
		h.cfg.Metrics.failedHTTPOpen(upstream.ReasonOf(err))
		return refusalOf(r, f, err)
	}
	return 0
}

// dial makes a connection to a member for the first request that is to use it.
func (h *HTTP) dial(ctx context.Context, m upstream.Member, v *upstream.Visit) (upstream.Conn, error) {
	limit := h.cfg.DialTimeout
	if v.Limit > 0 {
		limit = min(limit, v.Limit)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	d, err := m.Dial(ctx, v)
	if err != nil {
		failed := upstream.Failure(m, err)
		h.cfg.Metrics.failedHTTPOpen(failed.Reason)
		return nil, failed
	}
	return d.Conn, nil
}

func remote(r *http.Request) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero AddrPort for other networks
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func local(r *http.Request) netip.AddrPort {
	a, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return addrPort(a)
}
