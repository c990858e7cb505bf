package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"culvert/internal/auth"
)

// Bearer is whoever has shown a credential.
type Bearer interface {
	// Permit says whether the bearer may do something: nil, or why not.
	Permit(auth.Action) error
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
}

// Handler serves /status and /metrics to those who may read, and what HealthHandler serves to anyone.
func Handler(cfg Config) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("/status", cfg.guard(http.HandlerFunc(cfg.status)))
	routes.Handle("/metrics", cfg.guard(promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{})))
	routes.Handle("/", health(cfg.Ready))
	return readOnly(routes)
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
		refuse(w, http.StatusInternalServerError, "the status cannot be written as JSON")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n'))
	}
}

// guard lets those pass who may read. Others lose their connection.
func (cfg Config) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := bearerToken(r.Header)
		bearer, err := cfg.Authorize(token) // without one too: a server may ask for none
		if err != nil && !ok {
			challenge(w, "", "a bearer token is needed: send \"Authorization: Bearer TOKEN\"")
			return
		}
		if err != nil {
			challenge(w, "invalid_token", because(err))
			return
		}
		if err := bearer.Permit(auth.Read()); err != nil {
			if errors.Is(err, auth.ErrRevoked) || errors.Is(err, auth.ErrExpired) {
				challenge(w, "invalid_token", because(err))
				return
			}
			refuse(w, http.StatusForbidden, "the token is valid, but its grant does not let it read status and metrics")
			return
		}
		if cfg.Admitted != nil {
			cfg.Admitted(r)
		}
		next.ServeHTTP(w, r)
	})
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

func challenge(w http.ResponseWriter, code, text string) {
	header := `Bearer realm="culvert"`
	if code != "" {
		header += `, error="` + code + `"`
	}
	w.Header().Set("WWW-Authenticate", header)
	refuse(w, http.StatusUnauthorized, text)
}

// refuse answers with a text and ends the connection.
func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, code)
}

// readOnly refuses methods that change something.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "only GET and HEAD are served here")
			return
		}
		next.ServeHTTP(w, r)
	})
}
