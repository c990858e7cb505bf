package cli

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing")

// pages are all commands with a page of our own.
func pages(w *world) []*cobra.Command {
	root := NewRoot(w.deps())
	return append(everyCommand(root), root)
}

func TestGoldenHelp(t *testing.T) {
	w := newWorld(t)
	for _, cmd := range pages(w) {
		if strings.HasPrefix(cmd.CommandPath(), "culvert completion ") {
			continue // cobra's words
		}
		words := strings.Fields(cmd.CommandPath())[1:]
		if code := w.runWords(t, append(words, "--help")...); code != 0 {
			t.Fatalf("%s --help: code %d", cmd.CommandPath(), code)
		}
		path := filepath.Join("testdata", "help", strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".txt")
		if *update {
			if err := os.WriteFile(path, w.stdout.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%s (go test ./internal/cli -update writes it)", err)
		}
		if diff := cmp.Diff(string(want), w.stdout.String()); diff != "" {
			t.Errorf("%s: want -, got +\n%s", path, diff)
		}
	}
}

func TestHelpHasPurposeAndExamples(t *testing.T) {
	for _, cmd := range pages(newWorld(t)) {
		if cmd.Short == "" || strings.Contains(cmd.Short, "\n") || len(cmd.Short) > 130 {
			t.Errorf("%s: the purpose is not one line: %q", cmd.CommandPath(), cmd.Short)
		}
		if n := len(strings.Split(cmd.Example, "\n")); n < 2 || n > 3 {
			t.Errorf("%s: %d examples, want 2 or 3", cmd.CommandPath(), n)
		}
	}
}

// Every example in help runs as it stands there.
func TestHelpsExamplesRun(t *testing.T) {
	for _, cmd := range pages(newWorld(t)) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			w := exampleWorld(t)
			for _, line := range strings.Split(cmd.Example, "\n") {
				if code := w.run(t, exampleArguments(line)); code != 0 {
					t.Errorf("%s: code %d\n%s", line, code, &w.stderr)
				}
			}
		})
	}
}

// exampleWorld has what the examples take as given, in the working directory.
func exampleWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	t.Chdir(w.dir)
	if err := os.Mkdir("public", 0o700); err != nil {
		t.Fatal(err)
	}
	writeKeyPair(t, "fullchain.pem", "privkey.pem")
	tokens := `tokens: [{id: 0c5f2a1c, name: other, hash: "sha256:` + strings.Repeat("0", 64) + `", read: true}]`
	if err := os.WriteFile("tokens.yaml", []byte(tokens), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// exampleArguments are what follows the program's name in an example, without what only a shell understands.
func exampleArguments(line string) string {
	line = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "source <("), ")")
	args, _, _ := strings.Cut(strings.TrimPrefix(line, "culvert "), " > ")
	if strings.HasPrefix(args, "status ") || strings.HasPrefix(args, "token revoke") {
		args += " --help" // they need a server, or a token that is there: they have tests of their own
	}
	return strings.NewReplacer("'", "", "file:/srv/www", "file:public", "-w /srv/www", "-w public").Replace(args)
}
