package control

import "testing"

func TestPathLabelsAreBounded(t *testing.T) {
	for path, want := range map[string]string{
		"/connect": "/connect", "/status": "/status", "/metrics": "/metrics", "/healthz": "/healthz", "/readyz": "/readyz",
		"/readyz/db": "/readyz", "/readyzz": "other", "/": "other", "/made/up": "other", "": "other",
	} {
		if got := pathLabel(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}
