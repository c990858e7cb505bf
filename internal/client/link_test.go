package client

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"culvert/internal/auth"
	"culvert/internal/pki"
)

// A client that reaches its server through a proxy alone must get the server's CA that way, too.
func TestCAIsFetchedThroughTheProxy(t *testing.T) {
	asked := ""
	l := newLink(Config{
		Token: auth.NewSecret("a token of the tests"),
		Trust: pki.Trust{Auto: true},
		Proxy: func(r *http.Request) (*url.URL, error) {
			asked = r.URL.Host
			return nil, errors.New("none today")
		},
	}, &url.URL{Scheme: "wss", Host: "127.0.0.1:1", Path: "/connect"})
	if _, err := l.connect(t.Context()); asked != "127.0.0.1:1" || err == nil || !strings.Contains(err.Error(), "PROXY") {
		t.Errorf("the proxy was asked for %q, and the connection gave %v", asked, err)
	}
}
