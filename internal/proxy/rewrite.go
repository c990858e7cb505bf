package proxy

import (
	"net/http"
	"net/http/httputil"
	"strings"
)

// Every member has connections of its own, so the address of the URL names nothing; one name for all lets requests for
// any host share them.
const memberHost = "member"

// rewrite makes the request that a service sees: the visitor's, with our word in place of the visitor's on where it comes
// from.
func rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	f := flowOf(in.Context())
	out.URL.Scheme, out.URL.Host = "http", memberHost
	out.URL.RawQuery = in.URL.RawQuery // nothing here is decided by the query, so it passes as it is
	out.Host = in.Host

	dropForwarding(out.Header)
	dropForwarding(out.Trailer)
	if source := f.visit.Source.Addr(); source.IsValid() {
		out.Header["X-Forwarded-For"] = []string{source.WithZone("").String()}
	}
	out.Header["X-Forwarded-Host"] = []string{in.Host}
	out.Header["X-Forwarded-Proto"] = []string{scheme(in)}
	out.Header["X-Request-Id"] = []string{f.visit.ID}

	if upgradesToHTTP2(out.Header) {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}
	out.Header.Del("Http2-Settings")
	if !safe(in.Method) {
		hideIdempotencyKey(out.Header)
	}
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// dropForwarding removes what a visitor may have said about itself, in each spelling that some service takes for the
// same: CGI and WSGI read X_Real_Ip as X-Real-Ip.
func dropForwarding(h http.Header) {
	for name := range h {
		if isForwarding(name) {
			delete(h, name)
		}
	}
}

func isForwarding(name string) bool {
	return sameHeader(name, "forwarded") || sameHeader(name, "x-real-ip") || sameHeader(name, "x-request-id") ||
		len(name) >= len("x-forwarded") && sameHeader(name[:len("x-forwarded")], "x-forwarded")
}

// sameHeader compares a header's name with one in lower case, where an underscore counts as a dash.
func sameHeader(name, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '_':
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// upgradesToHTTP2 says whether the visitor wants to go on in HTTP/2, past all that is decided per request here.
func upgradesToHTTP2(h http.Header) bool {
	for _, v := range h["Upgrade"] {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "h2c") {
				return true
			}
		}
	}
	return false
}

// safe says whether a request of the method may run twice when it has no body.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	default:
		return false
	}
}

// hideIdempotencyKey keeps http.Transport from sending a request twice by itself, which it does when it finds one of
// these headers in canonical spelling. Names are the same in any case to the service.
func hideIdempotencyKey(h http.Header) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if v, ok := h[name]; ok {
			delete(h, name)
			h[strings.ToLower(name)] = v
		}
	}
}

// requestID is the visitor's own X-Request-Id if it is fit to be logged, else a new one.
func requestID(h http.Header) string {
	id := h.Get("X-Request-Id")
	if id == "" || len(id) > 128 {
		return newID()
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.:=+/", c) >= 0:
		default:
			return newID()
		}
	}
	return id
}
