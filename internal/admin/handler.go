package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"culvert/internal/accesslog"
	"culvert/internal/auth"
)

// Bearer is whoever has shown a credential.
type Bearer interface {
	// Permit says whether the bearer may do something: nil, or why not.
	Permit(auth.Action) error
	// String names the token, for the log.
	String() string
}

// Config is what a Handler needs.
type Config struct {
	// Status is called for each request of the status; what it gives belongs to the Handler.
	Status func() Status
	// Authorize says who bears a token; "" is that of a request without one.
	Authorize func(token string) (Bearer, error)
	// Admitted, if set, is called with each request whose bearer may read, before it is answered.
	Admitted func(*http.Request)
	// Ready says why a service, or with "" the process, is not ready to take traffic; nil if it is. Its words are shown to
	// anyone.
	Ready func(service string) error
	// Gatherer gives the metrics.
	Gatherer prometheus.Gatherer

	// What the API is about. Without an Operator there is no API; with one, all are required but for the DataPlane.
	Operator    Operator
	Diverts     Diverts
	DataPlane   DataPlane
	Connections func(accesslog.Query) []accesslog.Record
	Log         *slog.Logger // of changes; nil: nowhere
}

// Handler serves /status and /metrics to those who may read, the API to those who may read or administer, and what
// HealthHandler serves to anyone. It refuses bodies of its own accord below APIPath alone.
func Handler(cfg Config) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("/status", cfg.guard(auth.Read(), refuse, http.HandlerFunc(cfg.status)))
	routes.Handle("/metrics", cfg.guard(auth.Read(), refuse, promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{})))
	routes.Handle("/", health(cfg.Ready))
	if cfg.Operator == nil {
		return readOnly(routes)
	}
	all := http.NewServeMux()
	all.Handle("/", readOnly(routes))
	all.Handle(APIPath, cfg.api())
	return all
}

func (cfg Config) status(w http.ResponseWriter, r *http.Request) {
	s := cfg.Status()
	if s.Clients == nil {
		s.Clients = []Client{} // [] rather than null
	}
	for i := range s.Clients {
		if s.Clients[i].Upstreams == nil {
			s.Clients[i].Upstreams = []string{}
		}
	}
	body, err := json.Marshal(s)
	if err != nil {
		refuse(w, r, http.StatusInternalServerError, "the status cannot be written as JSON")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n'))
	}
}

// refusal answers with an error and ends the connection.
type refusal func(w http.ResponseWriter, r *http.Request, code int, text string)

type bearerKey struct{}

// guard lets those pass who may do the action. Others lose their connection.
func (cfg Config) guard(action auth.Action, refuse refusal, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := bearerToken(r.Header)
		bearer, err := cfg.Authorize(token) // without one too: a server may ask for none
		if err != nil && !ok {
			challenge(w, "")
			refuse(w, r, http.StatusUnauthorized, "a bearer token is needed: send \"Authorization: Bearer TOKEN\"")
			return
		}
		if err == nil {
			err = bearer.Permit(action)
			var denied *auth.Denied
			if errors.As(err, &denied) {
				refuse(w, r, http.StatusForbidden, forbidden(action))
				return
			}
		}
		if err != nil {
			challenge(w, "invalid_token")
			refuse(w, r, http.StatusUnauthorized, because(err))
			return
		}
		if cfg.Admitted != nil {
			cfg.Admitted(r)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), bearerKey{}, bearer)))
	})
}

func forbidden(action auth.Action) string {
	if action == auth.Administer() {
		return "the token is valid, but its grant does not let it administer the server"
	}
	return "the token is valid, but its grant does not let it read status and metrics"
}

// bearerToken is the token of an Authorization header, "" if it has none; the scheme is in any case.
func bearerToken(h http.Header) (token string, ok bool) {
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	token = strings.TrimSpace(token)
	return token, token != ""
}

// because says why a token is refused, and no more than its bearer may know.
func because(err error) string {
	if errors.Is(err, auth.ErrExpired) {
		return "the token has expired"
	}
	return "the token is not known to this server"
}

func challenge(w http.ResponseWriter, code string) {
	header := `Bearer realm="culvert"`
	if code != "" {
		header += `, error="` + code + `"`
	}
	w.Header().Set("WWW-Authenticate", header)
}

// refuse answers with a text and ends the connection.
func refuse(w http.ResponseWriter, r *http.Request, code int, text string) {
	giveUpBody(w, r)
	w.Header().Set("Connection", "close")
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, code)
}

// giveUpBody keeps the server from waiting for the rest of the body of a request that is refused.
func giveUpBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // a failure means that it is closed already
	}
}

// readOnly refuses methods that change something.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, r, http.StatusMethodNotAllowed, "only GET and HEAD are served here")
			return
		}
		next.ServeHTTP(w, r)
	})
}
