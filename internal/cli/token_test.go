package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/auth"
)

func TestTokensAreMadeListedAndRevoked(t *testing.T) {
	w := newWorld(t)
	if code := w.run(t, "token new --tokens DIR/tokens.yaml --name laptop --hosts app.example.com,*.dev.example.com --ports 2222 --ports 8000-8100 --expires 90d"); code != 0 {
		t.Fatalf("new: %s", &w.stderr)
	}
	token := strings.TrimSuffix(w.stdout.String(), "\n")
	id := auth.TokenID(token)
	if id == "" || strings.Contains(w.stderr.String(), token) {
		t.Errorf("new: token %q, standard error %q", token, &w.stderr)
	}
	file, err := os.ReadFile(filepath.Join(w.dir, "tokens.yaml"))
	if err != nil || strings.Contains(string(file), token) {
		t.Errorf("the file, which must not hold the token: %v\n%s", err, file)
	}

	w.run(t, "token new --tokens DIR/tokens.yaml --name ops --everything --output json")
	var made record
	if err := json.Unmarshal(w.stdout.Bytes(), &made); err != nil || auth.TokenID(made.Token) != made.ID {
		t.Errorf("new --output json: %v\n%s", err, &w.stdout)
	}

	w.run(t, "token list --tokens DIR/tokens.yaml")
	want := "ID        Name    Expires     May\n" +
		id + "  laptop  2026-05-30  offer hosts app.example.com,*.dev.example.com; offer ports 2222,8000-8100\n" +
		made.ID + "  ops     never       offer hosts *; offer names *; visit *; forward to *:*; divert *; offer ports 1-65535; read; administer\n"
	if got := w.stdout.String(); got != want {
		t.Errorf("list:\n%s\nwant:\n%s", got, want)
	}

	if code := w.run(t, "token revoke --tokens DIR/tokens.yaml laptop"); code != 0 {
		t.Errorf("revoke: %s", &w.stderr)
	}
	w.run(t, "token list --tokens DIR/tokens.yaml --output json")
	var left []record
	if err := json.Unmarshal(w.stdout.Bytes(), &left); err != nil || len(left) != 1 || left[0].Name != "ops" || left[0].Token != "" {
		t.Errorf("after revoke: %v\n%s", err, &w.stdout)
	}
	if code := w.run(t, "token revoke --tokens DIR/tokens.yaml laptop"); code != 1 {
		t.Errorf("revoke again: code %d", code)
	}
	if code := w.run(t, "token list --tokens DIR/none.yaml"); code != 1 {
		t.Errorf("list of a missing file: code %d", code)
	}
}

func TestTokenNewRefuses(t *testing.T) {
	w := newWorld(t)
	for line, want := range map[string]string{
		"":                        "culvert: --tokens: the token file is missing; give --tokens FILE, the file of a server's --tokens",
		"--tokens DIR/t --name a": "culvert: --hosts: the token may do nothing; give --hosts, --ports, --read and so on, or --everything",
		"--tokens DIR/t --name a --everything --read": "culvert: --everything: contradicts the narrower grant; leave one of the two out",
	} {
		code := w.run(t, "token new "+line)
		if first, _, _ := strings.Cut(w.stderr.String(), "\n"); code != 2 || first != want {
			t.Errorf("token new %s: code %d\n%s", line, code, first)
		}
	}
	for _, wrong := range []string{"--hosts a:80", "--ports 0", "--names [", "--forward nowhere", "--divert [", "--expires soon"} {
		if code := w.run(t, "token new --tokens DIR/t --name a "+wrong); code != 2 || !strings.Contains(w.stderr.String(), "culvert: "+strings.Fields(wrong)[0]+": ") {
			t.Errorf("token new %s: code %d\n%s", wrong, code, &w.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "t")); err == nil {
		t.Error("a file was made")
	}
}
