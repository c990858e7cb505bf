package admin

import (
	"net/http"
)

// HealthHandler serves what needs no credential: /healthz says that the process is up, /readyz and /readyz/SERVICE
// whether the process or one service takes traffic. ready is Config.Ready.
func HealthHandler(ready func(service string) error) http.Handler {
	return readOnly(health(ready))
}

func health(ready func(service string) error) http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { well(w) })
	readiness := func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r.PathValue("service")); err != nil {
			refuse(w, r, http.StatusServiceUnavailable, "not ready: "+err.Error())
			return
		}
		well(w)
	}
	routes.HandleFunc("/readyz", readiness)
	routes.HandleFunc("/readyz/{service}", readiness)
	routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusNotFound, "nothing is served under this path")
	})
	return routes
}

func well(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Connection", "close")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte("ok\n"))
}
