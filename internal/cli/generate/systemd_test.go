package generate

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// FuzzQuoteExec reads back what quoteExec wrote, as systemd would.
func FuzzQuoteExec(f *testing.F) {
	for _, seed := range []string{"", "plain", "a b", `"`, `\`, "%n", "$HOME", "${HOME}", "$$", "'", ";", "#", "é", "\t", "a\nb", `\x41`, "-", "%%", `a\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if checkValue(value) != nil {
			return
		}
		quoted := quoteExec(value)
		words, err := systemdWords("x "+quoted+" y", nil)
		if err != nil {
			t.Fatalf("%q is written as %s, which cannot be read: %s", value, quoted, err)
		}
		if diff := cmp.Diff([]string{"x", value, "y"}, words); diff != "" {
			t.Errorf("%q is written as %s:\n%s", value, quoted, diff)
		}
	})
}

// FuzzUnit gives every kind of free text to a client and reads the whole unit back (C21).
func FuzzUnit(f *testing.F) {
	f.Add("x", "/srv/token")
	f.Add(`50% $HOME "q" \`, "/a b%n")
	f.Add("a,b", "../x")
	f.Add("a\nExecStartPre=/bin/sh", "/x\nUser=root")
	f.Fuzz(func(t *testing.T, label, path string) {
		if strings.Contains(label, ",") || path == "" || !utf8.ValidString(label+path) {
			return
		}
		line := []string{"client", "--url=wss://a", "--upstream=http://b", "--label=k=" + label, "--token-file=" + path}
		result, err := write(t, options(), "systemd", line...)
		if err != nil {
			return
		}
		unit := parseUnit(t, result.Text)
		env := map[string]string{"CREDENTIALS_DIRECTORY": "/credentials"}
		words, err := systemdWords(unit["ExecStart"][0], env)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			"/usr/local/bin/culvert", "client", "--url", "wss://a", "--token-file", "/credentials/token", "--label", "k=" + label,
			"--upstream", "http://b",
		}
		less := func(words []string) map[string]int {
			m := map[string]int{}
			for _, w := range words {
				m[w]++
			}
			return m
		}
		if diff := cmp.Diff(less(want), less(words)); diff != "" {
			t.Errorf("label %q, path %q: want -, got +\n%s", label, path, diff)
		}
		if len(unit["ExecStart"]) != 1 || len(unit["LoadCredential"]) != 1 || len(unit["ExecStartPre"])+len(unit["User"]) > 0 {
			t.Errorf("label %q, path %q: injected settings:\n%s", label, path, result.Text)
		}
		id, source, _ := strings.Cut(unit["LoadCredential"][0], ":")
		abs, _ := absolute(path, options().Dir)
		if id != "token" || strings.ReplaceAll(source, "%%", "%") != abs {
			t.Errorf("path %q is written as %q", path, source)
		}
	})
}

// parseUnit reads settings as systemd.syntax(7) says: comments, continued lines, the last backslash joining with a space.
func parseUnit(t *testing.T, text string) map[string][]string {
	t.Helper()
	unit := map[string][]string{}
	logical := ""
	for _, line := range strings.Split(text, "\n") {
		if trimmed := strings.TrimLeft(line, " \t"); strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";") {
			continue
		}
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			logical += rest + " "
			continue
		}
		logical += line
		key, value, ok := strings.Cut(logical, "=")
		switch {
		case ok:
			unit[key] = append(unit[key], strings.TrimSpace(value))
		case strings.TrimSpace(logical) != "" && !strings.HasPrefix(logical, "["):
			t.Errorf("a line that is no setting: %q", logical)
		}
		logical = ""
	}
	return unit
}

// systemdWords splits a command as systemd does: quotes and escapes, then specifiers, then variables.
func systemdWords(line string, env map[string]string) ([]string, error) {
	var words []string
	word, in, quote := "", false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\':
			i++
			if i == len(line) || !strings.ContainsRune(`\"'`, rune(line[i])) {
				return nil, fmt.Errorf("escape at %d of %q", i, line)
			}
			word, in = word+string(line[i]), true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			if in {
				return nil, fmt.Errorf("quote inside a word at %d of %q", i, line)
			}
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				words = append(words, word)
			}
			word, in = "", false
		case quote == 0 && !in && c == ';' && (i+1 == len(line) || line[i+1] == ' '):
			return nil, fmt.Errorf("a second command at %d of %q", i, line)
		default:
			word, in = word+line[i:i+1], true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("open quote in %q", line)
	}
	if in {
		words = append(words, word)
	}
	for i, w := range words {
		expanded, err := expand(w, env)
		if err != nil {
			return nil, err
		}
		words[i] = expanded
	}
	return words, nil
}

// expand replaces %% and $$, and the variables of env; any other specifier or variable is an error.
func expand(w string, env map[string]string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(w); i++ {
		c := w[i]
		if c != '%' && c != '$' {
			b.WriteByte(c)
			continue
		}
		rest := w[i+1:]
		name, _, ok := strings.Cut(strings.TrimPrefix(rest, "{"), "}")
		value, known := env[name]
		switch {
		case rest != "" && rest[0] == c:
			b.WriteByte(c)
			i++
		case c == '$' && ok && known && rest[0] == '{':
			b.WriteString(value)
			i += len(name) + 2
		default:
			return "", fmt.Errorf("%q expands something at %d", w, i)
		}
	}
	return b.String(), nil
}

// TestSystemdAccepts lets systemd itself look at every golden unit.
func TestSystemdAccepts(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed (Debian: systemd)")
	}
	units, err := filepath.Glob("testdata/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("no golden units: %v", err)
	}
	for _, golden := range units {
		t.Run(filepath.Base(golden), func(t *testing.T) {
			text, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			// The program must exist for the check.
			unit := strings.Replace(string(text), "ExecStart=/usr/local/bin/culvert", "ExecStart=/bin/true", 1)
			file := filepath.Join(t.TempDir(), filepath.Base(golden))
			if err := os.WriteFile(file, []byte(unit), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), tool, "verify", "--man=no", "--recursive-errors=no", file).CombinedOutput()
			if strings.Contains(string(out), "Failed to initialize manager") || strings.Contains(string(out), "Failed to connect to") {
				t.Skipf("systemd-analyze does not work here: %s", out)
			}
			if err != nil || strings.Contains(string(out), filepath.Base(golden)+":") {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
		})
	}
}
