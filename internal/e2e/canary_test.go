//go:build linux

package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A canary is a secret that is looked for wherever something could sing.
type canary struct{ name, secret string }

// forms are what a secret looks like when it got somewhere by a detour.
func (c canary) forms() map[string]string {
	digest := sha256.Sum256([]byte(c.secret))
	return map[string]string{
		"itself":              c.secret,
		"in base64":           base64.RawStdEncoding.EncodeToString([]byte(c.secret))[:len(c.secret)],
		"in hexadecimal":      hex.EncodeToString([]byte(c.secret)),
		"in a URL":            url.QueryEscape(c.secret),
		"as digest":           hex.EncodeToString(digest[:]),
		"as digest in base64": base64.RawStdEncoding.EncodeToString(digest[:]),
		"half of it":          c.secret[:len(c.secret)/2],
	}
}

// sings fails the test if any form of any canary is in a text.
func sings(t *testing.T, where, text string, canaries []canary) {
	t.Helper()
	for _, c := range canaries {
		for form, s := range c.forms() {
			if strings.Contains(text, s) {
				t.Errorf("%s shows the %s %s:\n%s", where, c.name, form, lineOf(text, s))
			}
		}
	}
}

func lineOf(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

func TestSecretsAppearNowhere(t *testing.T) {
	shared := canary{"shared token", rand.Text()}
	password := canary{"password of the file server", rand.Text()}
	dir := t.TempDir()
	file := write(t, dir, "token", shared.secret+"\n", 0o600)
	passwordFile := write(t, dir, "password", password.secret+"\n", 0o600)
	tokens := filepath.Join(dir, "tokens.yaml")
	made := must(t, program{argv: []string{culvert(), "token", "new", "--tokens", tokens, "--name", "canary", "--everything"}})
	scoped := canary{"token of the token file", tokenIn(t, made)}
	canaries := []canary{shared, password, scoped}

	// The token file keeps a digest of its token, by design: SECURITY.md says what that means. Not the token itself.
	content, err := os.ReadFile(tokens)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), scoped.secret) {
		t.Error("the token file holds the token itself")
	}

	s := startServer(t, "--log-level", "debug", "--tokens", tokens)
	canaries = append(canaries, canary{"server's token", s.token})
	root := t.TempDir()
	write(t, root, "index.html", "hello\n", 0o644)
	site := freeAddr(t)
	files := start(t, program{argv: []string{
		culvert(), "fileserver", "--webroot", root, "--port", port(t, site), "--log-level", "debug",
		"--basic-auth-password-file", passwordFile,
	}})
	accepts(t, "tcp", site)
	client := func(token, upstream string) *process {
		return start(t, program{
			argv: []string{culvert(), "client", "--url", "wss://" + s.control, "--log-level", "debug", "--token-env", "T", "--upstream", upstream},
			env:  []string{"T=" + token},
		})
	}
	clients := map[string]*process{
		"log of a client":                     client(s.token, "http://"+site),
		"log of a client with a scoped token": client(scoped.secret, "a.example.com=http://"+site),
		"log of a client with a wrong token":  client(shared.secret, "http://"+site),
	}
	s.members(t, 2, patience)
	clients["log of a client with a wrong token"].line(t, `not connected`)
	knock(t, s, password.secret)

	sings(t, "log of the server", s.out.String(), canaries)
	sings(t, "log of the file server", files.out.String(), canaries)
	for where, c := range clients {
		sings(t, where, c.out.String(), canaries)
		sings(t, "command line of a client", commandLine(c.pid()), canaries)
	}
	for _, path := range []string{"/status", "/metrics", "/healthz", "/readyz", "/nothing"} {
		_, body, err := s.ask(t.Context(), path, s.token)
		if err != nil {
			t.Fatal(err)
		}
		sings(t, path, body, canaries)
	}
	for _, output := range []string{"text", "json"} {
		r := complete(t, program{argv: []string{culvert(), "status", "--url", "wss://" + s.control, "--token", s.token, "--output", output}})
		if r.code != 0 {
			t.Errorf("status: exit code %d\n%s", r.code, r.out)
		}
		sings(t, "culvert status", r.out, canaries)
	}
	generated(t, shared, file, password)
}

// knock sends requests that carry secrets in the wrong places.
func knock(t *testing.T, s *server, password string) {
	t.Helper()
	v := newVisitor(t, s.data)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.data+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("admin", password)
	resp, err := v.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the site with its password: %d", resp.StatusCode)
	}
	for _, token := range []string{s.token[:len(s.token)-1], s.token + "x"} {
		if code, _, err := s.ask(t.Context(), "/status", token); err != nil || code != http.StatusUnauthorized {
			t.Errorf("/status with nearly the token: %d %v", code, err)
		}
	}
}

// generated makes units and manifests of commands that were given secrets in every way.
func generated(t *testing.T, token canary, tokenFile string, password canary) {
	t.Helper()
	for _, form := range []string{"systemd", "k8s_yaml"} {
		for command, args := range map[string][]string{
			"server":     nil,
			"client":     {"--url", "wss://tunnel.example.com:8123", "--upstream", "http://127.0.0.1:3000"},
			"fileserver": {"--webroot", "/srv", "--basic-auth-password", password.secret},
		} {
			ways := map[string][]string{"--token": {"--token", token.secret}, "--token-file": {"--token-file", tokenFile}, "--token-env": {"--token-env", "T"}}
			if command == "fileserver" {
				ways = map[string][]string{"--basic-auth-password": nil}
			}
			for name, way := range ways {
				argv := append([]string{culvert(), command, "--generate", form}, args...)
				r := complete(t, program{argv: append(argv, way...), env: []string{"T=" + token.secret}})
				if r.code != 0 && r.code != 2 || r.code == 0 && r.stdout == "" { // a form that a command has not is refused
					t.Errorf("%s --generate %s with %s: exit code %d\n%s", command, form, name, r.code, r.out)
				}
				sings(t, command+" --generate "+form+" with "+name, r.out, []canary{token, password})
			}
		}
	}
	r := complete(t, program{argv: []string{culvert(), "server", "--help"}, env: []string{"CULVERT_SERVER_TOKEN=" + token.secret}})
	sings(t, "help", r.out, []canary{token})
}

// tokenIn finds the one token in a text.
func tokenIn(t *testing.T, text string) string {
	t.Helper()
	for word := range strings.FieldsSeq(text) {
		if word = strings.Trim(word, `",:`); strings.HasPrefix(word, "cvt_") {
			return word
		}
	}
	t.Fatalf("no token in %q", text)
	return ""
}
