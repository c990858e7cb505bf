package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"culvert/internal/upstream"
)

// refusal is an answer of our own. Its words say nothing of what is inside.
type refusal uint8

const (
	refuseConnect refusal = iota + 1
	refuseHost
	refuseBody
	refuseUnknown
	refuseEmpty
	refuseBusy
	refuseFailed
	refuseTimeout
	refuseGone
)

// statusGone is what metrics have for a visitor that left before an answer, as in nginx.
const statusGone = 499

func (r refusal) words() (status int, text string) {
	switch r {
	case refuseConnect:
		return http.StatusMethodNotAllowed, "this is no forward proxy"
	case refuseHost:
		return http.StatusBadRequest, "the host of the request is not valid"
	case refuseBody:
		return http.StatusBadRequest, "the body of the request broke off"
	case refuseUnknown:
		return http.StatusNotFound, "no service is offered for this host and path"
	case refuseEmpty:
		return http.StatusServiceUnavailable, "the service is down, or no client that offers it is connected"
	case refuseBusy:
		return http.StatusServiceUnavailable, "the service has too many connections"
	case refuseTimeout:
		return http.StatusGatewayTimeout, "the service did not answer in time"
	case refuseGone:
		return statusGone, "the visitor left"
	default:
		return http.StatusBadGateway, "the service could not be reached, or broke off before it answered"
	}
}

// answerError answers a request that no member answered. r is the request as it was to be sent.
func (h *HTTP) answerError(w http.ResponseWriter, r *http.Request, err error) {
	if rec, ok := w.(*recorder); ok && rec.hijacked {
		return // an upgrade broke off when its connection was the upgraded protocol's already
	}
	f := flowOf(r.Context())
	ref := refusalOf(r, f, err)
	status, _ := ref.words()
	level := slog.LevelDebug
	if status >= 500 {
		level = slog.LevelWarn
	}
	reason, _ := reasonOf(err)
	h.cfg.Log.Log(r.Context(), level, "request failed", "request", f.visit.ID, "source", f.visit.Source, "host", f.visit.Host,
		"method", r.Method, "status", status, "reason", reason, "err", err)
	h.answer(w, f, ref)
}

func refusalOf(r *http.Request, f *flow, err error) refusal {
	reason, _ := reasonOf(err)
	switch {
	case r.Context().Err() != nil, reason == upstream.Canceled:
		return refuseGone
	case f.body != nil && f.body.failed():
		return refuseBody
	case reason == upstream.TimedOut:
		return refuseTimeout
	case reason == upstream.NoMember, justGone(err):
		return refuseEmpty
	case reason == upstream.Overloaded, reason == upstream.QueueFull, reason == upstream.QueueTimeout:
		return refuseBusy
	default:
		return refuseFailed
	}
}

// justGone says whether the last candidate went away before it could be asked: as good as none.
func justGone(err error) bool {
	var d *upstream.DialError
	return errors.As(err, &d) && d.Reason == upstream.Lost && !d.MaybeSent
}

// answer writes a refusal as text, or as JSON for a visitor that would rather have it.
func (h *HTTP) answer(w http.ResponseWriter, f *flow, ref refusal) {
	header := w.Header()
	clear(header) // an answer that could not be passed on may have left its own
	status, text := ref.words()
	body := fmt.Appendf(nil, "%d %s\nrequest %s\n", status, text, f.visit.ID)
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if prefersJSON(f.in.Header) {
		body, _ = json.Marshal(struct { // strings and a number cannot fail
			Status    int    `json:"status"`
			Error     string `json:"error"`
			RequestID string `json:"requestId"`
		}{status, text, f.visit.ID})
		header.Set("Content-Type", "application/json")
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Request-Id", f.visit.ID)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// prefersJSON says whether JSON is the first kind that the visitor accepts and that we have.
func prefersJSON(h http.Header) bool {
	for _, accept := range h["Accept"] {
		for kind := range strings.SplitSeq(accept, ",") {
			kind, _, _ = strings.Cut(kind, ";")
			switch kind = strings.ToLower(strings.TrimSpace(kind)); {
			case kind == "application/json", strings.HasSuffix(kind, "+json"):
				return true
			case strings.HasPrefix(kind, "text/"), kind == "*/*":
				return false
			}
		}
	}
	return false
}
