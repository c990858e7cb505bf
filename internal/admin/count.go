package admin

import (
	"net/http"
	"strings"
)

// counted reports the path and the code of each answer, if anyone wants to know.
func counted(next http.Handler, report func(path string, code int)) http.Handler {
	if report == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &codeWriter{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(c, r)
		report(pathLabel(r.URL.Path), c.code)
	})
}

// pathLabel bounds what strangers can make a label of.
func pathLabel(path string) string {
	switch {
	case path == "/status", path == "/metrics", path == "/healthz", path == "/readyz":
		return path
	case strings.HasPrefix(path, "/readyz/"):
		return "/readyz"
	default:
		return "other"
	}
}

type codeWriter struct {
	http.ResponseWriter
	code int
}

func (w *codeWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach what the writer below can do.
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
