package cli

import (
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
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

// reference is the page of the documentation that holds the help of every command.
const reference = "../../docs/command-line.md"

const referenceHead = `# The command line

The help of every command, as the program prints it. Common to all:

- Every flag has an environment variable: the command and the flag in upper case, ` + "`CULVERT_HTTP_SERVER_PORT`" + `. The flag wins.
- Every flag of a server is a key of its ` + "`--config`" + ` file too: ` + "`control_port: 8123`" + `. Flag and environment win. [configuration.md](configuration.md) has the keys of the data plane.
- Repeatable flags take a comma list too.
- A secret is never needed on the command line: ` + "`--token-file`" + ` and ` + "`--token-env`" + ` stand beside ` + "`--token`" + `.
- Exit codes: 0 success, 1 failure, 2 a mistake in flags or files, 130 and 143 cut short by a second SIGINT or SIGTERM.

<!-- go test ./internal/cli -update writes this page -->
`

func TestReferencePageIsTheHelp(t *testing.T) {
	w := newWorld(t)
	var page strings.Builder
	page.WriteString(referenceHead)
	for _, cmd := range pages(w) {
		if strings.HasPrefix(cmd.CommandPath(), "culvert completion ") {
			continue // cobra's words
		}
		words := strings.Fields(cmd.CommandPath())[1:]
		if code := w.runWords(t, append(words, "--help")...); code != 0 {
			t.Fatalf("%s --help: code %d", cmd.CommandPath(), code)
		}
		fmt.Fprintf(&page, "\n## %s\n\n```text\n%s```\n", cmd.CommandPath(), w.stdout.String())
	}
	if *update {
		if err := os.WriteFile(reference, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(reference)
	if err != nil {
		t.Fatalf("%s (go test ./internal/cli -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), page.String()); diff != "" {
		t.Errorf("%s: want -, got + (go test ./internal/cli -update writes it)\n%s", reference, diff)
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
			w := newExampleWorld(t)
			for _, line := range strings.Split(cmd.Example, "\n") {
				w.runs(t, line)
			}
		})
	}
}

// exampleWorld has what the examples take as given: files in the working directory, and a server that answers everything.
type exampleWorld struct {
	*world
	server string // its address
}

func newExampleWorld(t *testing.T) exampleWorld {
	t.Helper()
	w := newWorld(t)
	t.Chdir(w.dir)
	for _, folder := range []string{"public", "site"} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeKeyPair(t, "fullchain.pem", "privkey.pem")
	writeKeyPair(t, "tls.crt", "tls.key")
	tokens := `tokens: [{id: 0c5f2a1c, name: other, hash: "sha256:` + strings.Repeat("0", 64) + `", read: true}]`
	write(t, "tokens.yaml", []byte(tokens))
	write(t, "culvert.yaml", []byte(rightFile))
	answer := fmt.Sprintf(connectionsJSON, "")
	answer = answer[:len(answer)-1] + `,"upstreams":[{"name":"app","members":[{"name":"web1"}]}]}`
	addr, ca := statusServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
	write(t, "ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.CA().Raw}))
	return exampleWorld{w, addr}
}

var (
	ofShell  = regexp.MustCompile(`^source <\(|\)$|'|"| > .*$|\s*&$`) // what only a shell understands
	asks     = regexp.MustCompile(`^(status|explain|reload|drain|divert list|divert end|member \w+) `)
	theirURL = regexp.MustCompile(`--url \S+`)
)

// runs runs a command line as it stands in a page, but for where its server is.
func (w exampleWorld) runs(t *testing.T, line string) {
	t.Helper()
	args := strings.TrimPrefix(ofShell.ReplaceAllString(strings.TrimSpace(line), ""), "culvert ")
	if asks.MatchString(args) {
		args = theirURL.ReplaceAllString(args, "--url wss://"+w.server)
		args = strings.NewReplacer("--auto-tls=false", "--auto-tls=false --tls-ca ca.crt", " --watch", "").Replace(args)
	}
	if strings.HasPrefix(args, "token revoke") {
		args += " --help" // of a token that is there: it has tests of its own
	}
	args = strings.NewReplacer("/etc/culvert/token", "token", "/srv/www", "public").Replace(args)
	if code := w.run(t, args); code != 0 {
		t.Errorf("%s: code %d\n%s", line, code, &w.stderr)
	}
}
