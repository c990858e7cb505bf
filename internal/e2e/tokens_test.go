//go:build linux

package e2e

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// newToken adds a token to a file.
func newToken(t *testing.T, file, name string, grant ...string) (token string) {
	t.Helper()
	return strings.TrimSpace(must(t, program{argv: append([]string{culvert(), "token", "new", "--tokens", file, "--name", name}, grant...)}))
}

func TestGrantsOfATokenFile(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens.yaml")
	allowed, forbidden := freeAddr(t), freeAddr(t)
	tenant := newToken(t, tokens, "tenant", "--hosts", "*.tenant.example.com", "--ports", port(t, allowed))
	reader := newToken(t, tokens, "reader", "--read")
	expired := newToken(t, tokens, "expired", "--everything", "--expires", "1h")
	turnBack(t, tokens)
	s := startServer(t, "--tokens", tokens)
	o := newOrigin(t, "a")
	client := func(token string) *process {
		return start(t, program{
			argv: []string{
				culvert(), "client", "--url", "wss://" + s.control, "--token-env", "T",
				"--upstream", "app.tenant.example.com=" + o.URL, "--upstream", "app.other.example.com=" + o.URL,
				"--upstream", port(t, allowed) + "=" + o.addr(), "--upstream", port(t, forbidden) + "=" + o.addr(),
			},
			env: []string{"T=" + token},
		})
	}
	c := client(tenant)
	c.line(t, `may not offer host app\.other\.example\.com`)
	c.line(t, `may not offer port `+port(t, forbidden))
	v := newVisitor(t, s.data)
	v.answers(t, "app.tenant.example.com", "/", http.StatusOK) // an offer that is refused does not end the session
	accepts(t, "tcp", allowed)
	if code, _, _, err := v.get(t.Context(), "app.other.example.com", "/"); err != nil || code != http.StatusNotFound {
		t.Errorf("a host of someone else: %d %v", code, err)
	}
	for name, c := range map[string]struct {
		token string
		code  int
	}{"a tenant": {tenant, http.StatusForbidden}, "a reader": {reader, http.StatusOK}, "the shared token": {s.token, http.StatusOK}} {
		if code, _, err := s.ask(t.Context(), "/status", c.token); err != nil || code != c.code {
			t.Errorf("/status for %s: %d %v, want %d", name, code, err, c.code)
		}
	}
	if code, body, err := s.ask(t.Context(), "/status", expired); err != nil || code != http.StatusUnauthorized || !strings.Contains(body, "expired") {
		t.Errorf("/status for an expired token: %d %q %v", code, body, err)
	}
}

// turnBack makes the one token of a file that expires expire yesterday.
func turnBack(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	expires := regexp.MustCompile(`(?m)^(\s*expires:).*$`)
	if n := len(expires.FindAll(content, -1)); n != 1 {
		t.Fatalf("%d tokens expire in\n%s", n, content)
	}
	yesterday := time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)
	write(t, filepath.Dir(file), filepath.Base(file), expires.ReplaceAllString(string(content), "$1 "+yesterday), 0o600)
}

func TestRevokedTokenEndsItsSessions(t *testing.T) {
	t.Parallel()
	tokens := filepath.Join(t.TempDir(), "tokens.yaml")
	first, second := newToken(t, tokens, "first", "--hosts", "one.example.com"), newToken(t, tokens, "second", "--hosts", "two.example.com")
	s := startServer(t, "--tokens", tokens)
	o := newOrigin(t, "a")
	for token, host := range map[string]string{first: "one.example.com", second: "two.example.com"} {
		start(t, program{
			argv: []string{culvert(), "client", "--url", "wss://" + s.control, "--token-env", "T", "--upstream", host + "=" + o.URL},
			env:  []string{"T=" + token},
		})
	}
	s.members(t, 2, patience)
	must(t, program{argv: []string{culvert(), "token", "revoke", "--tokens", tokens, "first"}})
	took := s.members(t, 1, 10*time.Second)
	t.Logf("the session of the revoked token is gone after %v", took)
	v := newVisitor(t, s.data)
	v.answers(t, "one.example.com", "/", http.StatusServiceUnavailable)
	v.must200(t, "two.example.com", "/")
	third := newToken(t, tokens, "third", "--read")
	eventually(t, 10*time.Second, "a new token is known", func(ctx context.Context) error {
		code, body, err := s.ask(ctx, "/status", third)
		if err == nil && code != http.StatusOK {
			err = errors.New(body)
		}
		return err
	})
}
