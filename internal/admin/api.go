package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"culvert/internal/accesslog"
	"culvert/internal/auth"
	"culvert/internal/cidr"
)

// APIPath is what the paths of the API begin with. They are the only ones whose requests may have a body, and see to it
// themselves.
const APIPath = "/api/"

const (
	maxBody     = 16 << 10
	bodyTimeout = 5 * time.Second

	defaultConnections = 100
	maxConnections     = 10_000
)

// errorAnswer is the body of an answer that is a failure.
type errorAnswer struct {
	Error string `json:"error"`
}

// api serves the paths below APIPath.
func (cfg Config) api() http.Handler {
	routes := http.NewServeMux()
	read := func(pattern string, h http.HandlerFunc) {
		routes.Handle(pattern, cfg.guarded(auth.Read(), bodiless(h)))
	}
	change := func(pattern string, h change) {
		routes.Handle(pattern, cfg.guarded(auth.Administer(), cfg.changing(h)))
	}
	read("GET /api/dataplane", cfg.state)
	read("GET /api/connections", cfg.connections)
	change("POST /api/reload", func(*http.Request) (changed, error) {
		warnings, err := cfg.Operator.Reload()
		return changed{answer: Reloaded{warnings}}, err
	})
	change("POST /api/drain", func(*http.Request) (changed, error) { cfg.Operator.Drain(); return changed{}, nil })
	change("PATCH /api/upstreams/{upstream}/members/{member}", cfg.changeMember)
	change("DELETE /api/diverts/{id}", func(r *http.Request) (changed, error) {
		return changed{}, cfg.Diverts.EndDivert(r.PathValue("id"), "ended by an operator")
	})
	routes.HandleFunc(APIPath, func(w http.ResponseWriter, r *http.Request) {
		fail(w, r, http.StatusNotFound, "the API has no such path, or not with this method")
	})
	return routes
}

// guarded is guard for the API: failures are JSON.
func (cfg Config) guarded(action auth.Action, next http.Handler) http.Handler {
	return cfg.guard(action, fail, next)
}

// fail answers with an error and ends the connection, without a wait for the rest of a body.
func fail(w http.ResponseWriter, r *http.Request, code int, text string) {
	giveUpBody(w, r)
	w.Header().Set("Connection", "close")
	answer(w, r, code, errorAnswer{text})
}

func answer(w http.ResponseWriter, r *http.Request, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n'))
	}
}

// bodiless refuses requests with a body.
func bodiless(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			fail(w, r, http.StatusRequestEntityTooLarge, "no request of this method has a body")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// change carries out what a request asks for.
type change func(*http.Request) (changed, error)

// changed is what is told of a change, besides that it was made or not.
type changed struct {
	attrs  []any // to the log: keys and values
	answer any   // to who asked for it, as JSON; nil for an empty object
}

// changing lets requests pass that change something, and puts down who did what. A page in someone's browser cannot send
// one: it would have to ask first, which nobody answers, because of the content type, and browsers say whose page it is.
func (cfg Config) changing(change change) http.Handler {
	foreign := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := foreign.Check(r); err != nil {
			fail(w, r, http.StatusForbidden, "requests of web pages of other sites are refused")
			return
		}
		if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(kind), "application/json") {
			fail(w, r, http.StatusUnsupportedMediaType, `send "Content-Type: application/json"`)
			return
		}
		if r.ContentLength > maxBody {
			fail(w, r, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", maxBody))
			return
		}
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		done, err := change(r)
		cfg.audit(r, done.attrs, err)
		if err != nil {
			fail(w, r, codeOf(err), strings.TrimPrefix(err.Error(), ErrNotFound.Error()+": "))
			return
		}
		_ = control.SetReadDeadline(time.Time{})
		if done.answer == nil {
			done.answer = struct{}{}
		}
		answer(w, r, http.StatusOK, done.answer)
	})
}

// audit puts down who changed what. Strangers' bytes are quoted by the log.
func (cfg Config) audit(r *http.Request, what []any, err error) {
	by, _ := r.Context().Value(bearerKey{}).(Bearer)
	attrs := []any{"by", by.String(), "from", r.RemoteAddr, "request", r.Method + " " + r.URL.EscapedPath()}
	attrs = append(attrs, what...)
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err != nil {
		log.Warn("change by the API refused", append(attrs, "reason", err)...)
		return
	}
	log.Info("change by the API", attrs...)
}

// badRequest is a request that is at fault itself.
type badRequest struct{ error }

func codeOf(err error) int {
	var long *http.MaxBytesError
	switch {
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.As(err, &long):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, new(badRequest)):
		return http.StatusBadRequest
	default:
		return http.StatusUnprocessableEntity
	}
}

// decode reads a body that is one JSON value with known fields alone.
func decode(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("something follows the JSON")
		}
	}
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &kind):
		err = fmt.Errorf("%q is a %s here: want %s", kind.Field, kind.Value, jsonKind(kind.Type))
	}
	return badRequest{fmt.Errorf("body: %w", err)}
}

// jsonKind is what JSON calls the values of a type.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	default:
		return "an object"
	}
}

func (cfg Config) changeMember(r *http.Request) (changed, error) {
	var change MemberChange
	if err := decode(r, &change); err != nil {
		return changed{}, err
	}
	what := changed{attrs: change.attrs()}
	if err := change.check(); err != nil {
		return what, badRequest{err}
	}
	if cfg.DataPlane == nil {
		return what, fmt.Errorf("%w: the server has no upstreams of a file", ErrNotFound)
	}
	return what, cfg.DataPlane.ChangeMember(r.PathValue("upstream"), r.PathValue("member"), change)
}

func (cfg Config) state(w http.ResponseWriter, r *http.Request) {
	var s State
	if cfg.DataPlane != nil {
		s = cfg.DataPlane.State()
	}
	s.Diverts = cfg.Diverts.Diverts()
	answer(w, r, http.StatusOK, whole(s))
}

// whole has [] rather than null.
func whole(s State) State {
	s.Entrypoints = list(s.Entrypoints)
	for i := range s.Entrypoints {
		s.Entrypoints[i].Routes = list(s.Entrypoints[i].Routes)
	}
	s.Upstreams = list(s.Upstreams)
	for i := range s.Upstreams {
		s.Upstreams[i].Members = list(s.Upstreams[i].Members)
	}
	s.Diverts = list(s.Diverts)
	return s
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// Connections is the answer to a question about connections, newest first.
type Connections struct {
	Connections []accesslog.Record `json:"connections"`
}

func (cfg Config) connections(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r)
	if err != nil {
		fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	answer(w, r, http.StatusOK, Connections{list(cfg.Connections(q))})
}

func parseQuery(r *http.Request) (q accesslog.Query, err error) {
	values := r.URL.Query()
	for key := range values {
		switch key {
		case "id", "source", "entrypoint", "limit":
		default:
			return q, fmt.Errorf("%.40q is unknown: ask by id, source, entrypoint and limit", key)
		}
	}
	q.ID, q.Entrypoint, q.Limit = values.Get("id"), values.Get("entrypoint"), defaultConnections
	if s := values.Get("source"); s != "" {
		if q.Source, err = ParseSource(s); err != nil {
			return q, err
		}
	}
	if s := values.Get("limit"); s != "" {
		if q.Limit, err = strconv.Atoi(s); err != nil || q.Limit < 1 || q.Limit > maxConnections {
			return q, fmt.Errorf("limit %.20q: want a number from 1 to %d", s, maxConnections)
		}
	}
	return q, nil
}

// ParseSource reads an address, with or without a port, or a CIDR.
func ParseSource(s string) (netip.Prefix, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return cidr.Of(ap.Addr()), nil
	}
	p, err := cidr.Parse(s)
	if err != nil {
		return p, fmt.Errorf("source: %w", err)
	}
	return p, nil
}
