//go:build linux

package e2e

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// Every way to supply a token: what works lets in those who know it and nobody else, and what does not work ends the
// program with exit code 2 before it has opened anything.

// A supply is one way to give a token to a command.
type supply struct {
	name string
	args []string
	env  []string
	want string // "" if it works, else what the error has to name
}

// supplies are the ways for a command whose variables begin with a prefix. dir is for files.
func supplies(t *testing.T, dir, prefix, token string) []supply {
	t.Helper()
	file := func(name, content string) string { return write(t, dir, name, content, 0o644) }
	return []supply{
		{name: "flag", args: []string{"--token", token}},
		{name: "flag with =", args: []string{"--token=" + token}},
		{name: "environment", env: []string{prefix + "_TOKEN=" + token}},
		{name: "flag before environment", args: []string{"--token", token}, env: []string{prefix + "_TOKEN=" + rand.Text()}},
		{name: "another flag before environment", args: []string{"--token-env", "T"}, env: []string{"T=" + token, prefix + "_TOKEN=" + rand.Text()}},
		{name: "named variable", args: []string{"--token-env", "MY_TOKEN"}, env: []string{"MY_TOKEN=" + token}},
		{name: "named variable, by environment", env: []string{prefix + "_TOKEN_ENV=MY_TOKEN", "MY_TOKEN=" + token}},
		{name: "file", args: []string{"--token-file", file("plain", token)}},
		{name: "file, by environment", env: []string{prefix + "_TOKEN_FILE=" + file("env", token)}},
		{name: "file with a newline", args: []string{"--token-file", file("lf", token+"\n")}},
		{name: "file with CRLF", args: []string{"--token-file", file("crlf", token+"\r\n")}},
		{name: "file, old flag", args: []string{"--token-from", file("old", token+"\n")}},

		{name: "nothing", want: "token"},
		{name: "empty flag", args: []string{"--token", ""}, want: "token"},
		{name: "blank flag", args: []string{"--token", "   "}, want: "token"},
		{name: "empty environment", env: []string{prefix + "_TOKEN="}, want: "token"},
		{name: "flag with a newline", args: []string{"--token", token + "\n"}, want: "token"},
		{name: "short flag", args: []string{"--token", "short"}, want: "16"},
		{name: "no variable name", args: []string{"--token-env", ""}, want: "token"},
		{name: "variable that is missing", args: []string{"--token-env", "MY_TOKEN"}, want: "--token-env"},
		{name: "variable that is empty", args: []string{"--token-env", "MY_TOKEN"}, env: []string{"MY_TOKEN="}, want: "--token-env"},
		{name: "variable that is blank", args: []string{"--token-env", "MY_TOKEN"}, env: []string{"MY_TOKEN= \t"}, want: "--token-env"},
		{name: "no file name", args: []string{"--token-file", ""}, want: "token"},
		{name: "file that is missing", args: []string{"--token-file", dir + "/none"}, want: dir + "/none"},
		{name: "file that is empty", args: []string{"--token-file", file("empty", "")}, want: dir + "/empty"},
		{name: "file with a newline only", args: []string{"--token-file", file("newline", "\n")}, want: dir + "/newline"},
		{name: "file with blanks only", args: []string{"--token-file", file("blank", " \t \r\n")}, want: dir + "/blank"},
		{name: "file of two lines", args: []string{"--token-file", file("two", token+"\n"+token+"\n")}, want: dir + "/two"},
		{name: "folder", args: []string{"--token-file", dir}, want: dir},
		{name: "short file", args: []string{"--token-file", file("short", "short\n")}, want: "16"},
		{name: "two ways", args: []string{"--token", token, "--token-file", file("twice", token)}, want: "more than once"},
	}
}

// supplyUnreadable is a file that the user who runs the command may not read. Root may read everything.
func supplyUnreadable(t *testing.T, dir, token string) supply {
	t.Helper()
	file := write(t, dir, "unreadable", token, 0o000)
	return supply{name: "file that is unreadable", args: []string{"--token-file", file}, want: file}
}

func TestEveryWayToGiveAServerItsToken(t *testing.T) {
	for _, command := range []string{"server", "http server", "tcp server"} {
		t.Run(command, func(t *testing.T) {
			token := rand.Text()
			for _, w := range supplies(t, t.TempDir(), "CULVERT_"+strings.ToUpper(strings.ReplaceAll(command, " ", "_")), token) {
				t.Run(w.name, func(t *testing.T) { serverSupply(t, command, w, token) })
			}
		})
	}
}

func serverSupply(t *testing.T, command string, w supply, token string) {
	t.Parallel()
	s := &server{control: freeAddr(t), data: freeAddr(t), token: token, state: t.TempDir() + "/state"}
	argv := append([]string{culvert()}, strings.Fields(command)...)
	argv = append(argv, "--control-addr", "127.0.0.1", "--control-port", port(t, s.control),
		"--auto-tls-path", s.state, "--auto-tls-san", "127.0.0.1", "--data-addr", "127.0.0.1")
	if command != "tcp server" {
		argv = append(argv, "--port", port(t, s.data))
	}
	p := program{argv: append(argv, w.args...), env: w.env}
	if w.want != "" {
		refusesToStart(t, p, w, token)
		if _, err := os.Stat(s.state); err == nil {
			t.Error("it made its CA before it refused")
		}
		return
	}
	s.process = start(t, p)
	accepts(t, "tcp", s.control)
	refusesStrangers(t, s)
	if _, err := s.status(t.Context()); err != nil {
		t.Errorf("with the token: %v", err)
	}
}

// refusesToStart checks that a program ends at once with exit code 2, says what is wrong and not what the secret is.
func refusesToStart(t *testing.T, p program, w supply, token string) {
	t.Helper()
	r := complete(t, p)
	if r.code != 2 {
		t.Errorf("exit code %d, want 2", r.code)
	}
	if !strings.Contains(r.out, w.want) {
		t.Errorf("the error does not name %q:\n%s", w.want, r.out)
	}
	if strings.Contains(r.out, token) {
		t.Errorf("the error shows the token:\n%s", r.out)
	}
}

// refusesStrangers tries to get in without the token in every way that a request can carry one.
func refusesStrangers(t *testing.T, s *server) {
	t.Helper()
	upgrade := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	c := http.Client{Transport: transport, Timeout: patience}
	for _, path := range []string{"/connect", "/status", "/metrics", "/connect?token=" + s.token} {
		for name, value := range map[string]string{
			"no token": "", "an empty token": "Bearer ", "a blank token": "Bearer    ", "another token": "Bearer " + rand.Text(),
			"a part of the token": "Bearer " + s.token[:len(s.token)-1], "more than the token": "Bearer " + s.token + "A",
			"the token without a scheme": s.token, "a password": "Basic " + s.token,
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.control+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(path, "/connect") {
				r.Header = upgrade.Clone()
			}
			if value != "" {
				r.Header.Set("Authorization", value)
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Errorf("%s with %s: %v", path, name, err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with %s: %d, want 401", path, name, resp.StatusCode)
			}
		}
	}
}

func TestEveryWayToGiveAClientItsToken(t *testing.T) {
	o := newOrigin(t, "a")
	s := startServer(t, "--max-unauthenticated-per-source", "1000")
	for command, upstream := range map[string]string{"client": o.URL, "http client": o.URL, "tcp client": o.addr()} {
		t.Run(command, func(t *testing.T) {
			prefix := "CULVERT_" + strings.ToUpper(strings.ReplaceAll(command, " ", "_"))
			argv := append([]string{culvert()}, strings.Fields(command)...)
			argv = append(argv, "--url", "wss://"+s.control, "--upstream", upstream)
			for _, w := range supplies(t, t.TempDir(), prefix, s.token) {
				t.Run("right token, "+w.name, func(t *testing.T) { clientSupply(t, s, argv, w, s.token) })
			}
			other := rand.Text()
			for _, w := range supplies(t, t.TempDir(), prefix, other) {
				if w.want == "" {
					t.Run("wrong token, "+w.name, func(t *testing.T) { clientSupply(t, s, argv, w, other) })
				}
			}
		})
	}
	if st, err := s.status(t.Context()); err != nil || len(st.Clients) != 0 {
		t.Errorf("clients are left: %+v %v", st.Clients, err)
	}
}

func clientSupply(t *testing.T, s *server, argv []string, w supply, token string) {
	t.Parallel()
	id := rand.Text()
	p := program{argv: append(append([]string{}, append(argv, "--id", id)...), w.args...), env: w.env}
	if w.want != "" {
		refusesToStart(t, p, w, token)
		return
	}
	c := start(t, p)
	if token != s.token {
		// It says what is wrong, and goes on trying: the operator may mend the server.
		c.line(t, `could not prove that it knows this token`)
		if s.knows(t, id) {
			t.Error("a client with another token is in")
		}
		return
	}
	eventually(t, patience, "the client is in", func(ctx context.Context) error {
		if !s.knows(t, id) {
			return fmt.Errorf("no client %s", id)
		}
		return nil
	})
	c.stop(t)
}

// knows says whether the status lists a client.
func (s *server) knows(t *testing.T, id string) bool {
	t.Helper()
	st, err := s.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range st.Clients {
		if c.ClientID == id {
			return true
		}
	}
	return false
}

// A client that trusts the certificate without the token's proof shows its token to the server, which refuses it.
func TestWrongTokenWithATrustedCA(t *testing.T) {
	s := startServer(t)
	dir := t.TempDir()
	c := start(t, program{argv: []string{
		culvert(), "client", "--url", "wss://" + s.control, "--auto-tls=false", "--tls-ca", s.state + "/ca.crt",
		"--token-file", write(t, dir, "token", rand.Text(), 0o600), "--upstream", newOrigin(t, "a").URL,
	}})
	c.line(t, `(?i)not connected.*token`)
	s.line(t, `(?i)client refused`)
	s.members(t, 0, patience)
}

func TestUnreadableTokenFile(t *testing.T) {
	for command, args := range map[string][]string{
		"server": {"--auto-tls-path", "state"},
		"client": {"--url", "wss://127.0.0.1:1", "--upstream", "http://127.0.0.1:1"},
	} {
		t.Run(command, func(t *testing.T) {
			dir, as := ownedDir(t)
			token := rand.Text()
			w := supplyUnreadable(t, dir, token)
			argv := append(append([]string{culvert(), command}, args...), w.args...)
			refusesToStart(t, program{argv: argv, dir: dir, user: as}, w, token)
		})
	}
}
