package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/client"
	"culvert/internal/config"
)

const testToken = "0123456789abcdef0123"

// world is what commands are run in: it records what they would have run.
type world struct {
	dir            string
	env            map[string]string
	stdout, stderr bytes.Buffer
	fail           error // of what is run

	server     *config.Server
	client     *config.Client
	fileserver *config.Fileserver
	demo       *config.Demo
	divert     *config.Divert
	events     []client.DivertEvent // of a divert
}

// newWorld has a folder with the files that examples name.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), env: map[string]string{"HOME": t.TempDir()}}
	for name, content := range map[string]string{"token": testToken + "\n", "password": "hunter2\n"} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// run runs a command line. Words hold no spaces; DIR stands for the world's folder.
func (w *world) run(t *testing.T, line string) (code int) {
	t.Helper()
	return w.runWords(t, strings.Fields(strings.ReplaceAll(line, "DIR", w.dir))...)
}

func (w *world) runWords(t *testing.T, args ...string) (code int) {
	t.Helper()
	w.stdout.Reset()
	w.stderr.Reset()
	w.server, w.client, w.fileserver, w.demo, w.divert = nil, nil, nil, nil, nil
	return Execute(t.Context(), w.deps(), args)
}

func (w *world) deps() Deps {
	return Deps{
		Build:       Build{Version: "1.2.3", Revision: "abc", Go: "go1", Platform: "linux/amd64"},
		Stdout:      &w.stdout,
		Stderr:      &w.stderr,
		Environment: config.Environment{Lookup: func(name string) (string, bool) { v, ok := w.env[name]; return v, ok }},
		Dir:         w.dir,
		Now:         func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) },
		RunServer: func(_ context.Context, cfg config.Server, _ *slog.Logger) error {
			w.server = &cfg
			return w.fail
		},
		RunClient: func(_ context.Context, cfg config.Client, _ *slog.Logger) error {
			w.client = &cfg
			return w.fail
		},
		RunFileserver: func(_ context.Context, cfg config.Fileserver, _ *slog.Logger) error {
			w.fileserver = &cfg
			return w.fail
		},
		RunDivert: func(_ context.Context, cfg config.Divert, event func(client.DivertEvent), _ *slog.Logger) error {
			w.divert = &cfg
			for _, e := range w.events {
				event(e)
			}
			return w.fail
		},
		RunDemo: func(_ context.Context, cfg config.Demo, out io.Writer, _ *slog.Logger) error {
			w.demo = &cfg
			_, _ = io.WriteString(out, "summary\n")
			return w.fail
		},
	}
}

// ran is the name of what was run.
func (w *world) ran() string {
	switch {
	case w.server != nil:
		return string(w.server.Mode) + " server"
	case w.client != nil:
		return string(w.client.Mode) + " client"
	case w.fileserver != nil:
		return "fileserver"
	case w.demo != nil:
		return "demo"
	case w.divert != nil:
		return "divert"
	}
	return ""
}

// Every command line of seed 001, with the name changed.
func TestSeedsCommandLinesRun(t *testing.T) {
	w := newWorld(t)
	for line, want := range map[string]string{
		"http server --token " + testToken + " --auto-tls=true --auto-tls-san=localhost --port 8000":              "http server",
		"http client --token " + testToken + " --url wss://localhost:8123 --upstream http://127.0.0.1:8080":       "http client",
		"http fileserver -w ./ --allow-browsing":                                                                  "fileserver",
		"fileserver -w ./ --allow-browsing":                                                                       "fileserver",
		"tcp server --token-file DIR/token --auto-tls --auto-tls-san 203.0.113.7 --data-addr 127.0.0.1:":          "tcp server",
		"tcp client --token-file DIR/token --url wss://203.0.113.7:8123/connect --upstream 127.0.0.1 --port 8000": "tcp client",
		"server --token-from DIR/token -c 8124":                                                                   "mixed server",
		"client -t " + testToken + " -r wss://h -u http://h":                                                      "mixed client",
		"demo --for 10s --output json":                                                                            "demo",
	} {
		if code := w.run(t, line); code != 0 || w.ran() != want {
			t.Errorf("culvert %s: code %d, ran %q, want %q\n%s", line, code, w.ran(), want, &w.stderr)
		}
	}
}

func TestSettingsReachWhatIsRun(t *testing.T) {
	w := newWorld(t)
	w.env["CULVERT_TCP_CLIENT_TOKEN_FILE"] = filepath.Join(w.dir, "token")
	w.env["CULVERT_TCP_CLIENT_LABEL"] = "site=a,rack=b"
	if code := w.run(t, "tcp client --url wss://one,wss://two:8123 --upstream 2222=localhost:22 --upstream 10.0.0.1 -p 80 --port 443"); code != 0 {
		t.Fatalf("code %d\n%s", code, &w.stderr)
	}
	c := w.client
	var specs []string
	for _, u := range c.Upstreams {
		specs = append(specs, u.Spec)
	}
	if got := strings.Join(specs, " "); got != "2222=localhost:22 10.0.0.1:80 10.0.0.1:443" {
		t.Errorf("upstreams %s", got)
	}
	if len(c.URLs) != 2 || c.URLs[1].String() != "wss://two:8123/connect" || c.Token.Reveal() != testToken || c.Labels["rack"] != "b" {
		t.Errorf("URLs %v, token %q, labels %v", c.URLs, c.Token.Reveal(), c.Labels)
	}
	if w.stderr.Len() > 0 {
		t.Errorf("standard error: %s", &w.stderr)
	}
}

func TestExitCodes(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		line string
		fail error
		want int
	}{
		{"demo", nil, 0},
		{"demo", errors.New("port in use"), 1},
		{"server --token-file DIR/token", context.Canceled, 1},
		{"server", nil, 2},
		{"version", nil, 0},
		{"--help", nil, 0},
		{"http server --help", nil, 0},
		{"help tcp client", nil, 0},
		{"help tcp cleint", nil, 2},
		{"", nil, 0},
		{"tcp", nil, 2},
		{"member", nil, 2},
		{"completion bash", nil, 0},
	} {
		w.fail = test.fail
		if code := w.run(t, test.line); code != test.want {
			t.Errorf("culvert %s (%v): code %d, want %d\n%s", test.line, test.fail, code, test.want, &w.stderr)
		}
		if test.want == 1 && w.stderr.String() != "culvert: "+test.fail.Error()+"\n" {
			t.Errorf("culvert %s: standard error %q", test.line, &w.stderr)
		}
	}
}

func TestASecretOnTheCommandLineIsWarnedOfOnce(t *testing.T) {
	w := newWorld(t)
	w.run(t, "server --token "+testToken)
	out := w.stderr.String()
	if strings.Count(out, "process list") != 1 || strings.Contains(out, testToken) || !strings.Contains(out, "level=WARN") {
		t.Errorf("standard error: %s", out)
	}
	w.run(t, "server --token-file DIR/token")
	if w.stderr.Len() > 0 {
		t.Errorf("standard error: %s", &w.stderr)
	}
}

func TestDeprecatedFlagsWorkAndSaySo(t *testing.T) {
	w := newWorld(t)
	for line, want := range map[string]string{
		"server --token-from DIR/token": "Flag --token-from has been deprecated, use --token-file\n",
		"server -f DIR/token":           "Flag shorthand -f has been deprecated, use --token-file\n",
		"client --token-file DIR/token --url wss://h -u http://localhost": "Flag shorthand -u has been deprecated, use --upstream\n",
		"client --token-file DIR/token -r wss://h --upstream http://h":    "Flag shorthand -r has been deprecated, use --url\n",
	} {
		if code := w.run(t, line); code != 0 || w.stderr.String() != want || w.stdout.Len() > 0 {
			t.Errorf("culvert %s: code %d, standard error %q, standard output %q", line, code, &w.stderr, &w.stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	w := newWorld(t)
	for line, want := range map[string]string{
		"version":               "culvert 1.2.3\nrevision abc\ngo1 linux/amd64\n",
		"--version":             "culvert 1.2.3\nrevision abc\ngo1 linux/amd64\n",
		"version --output json": "{\n  \"version\": \"1.2.3\",\n  \"revision\": \"abc\",\n  \"go\": \"go1\",\n  \"platform\": \"linux/amd64\"\n}\n",
	} {
		if code := w.run(t, line); code != 0 || w.stdout.String() != want {
			t.Errorf("culvert %s: code %d, %s", line, code, &w.stdout)
		}
	}
}

func TestGenerateWritesTheUnitAloneToStandardOutput(t *testing.T) {
	w := newWorld(t)
	for _, form := range []string{"systemd", "k8s_yaml"} {
		if code := w.run(t, "http server --token "+testToken+" --port 80 --generate "+form); code != 0 || w.ran() != "" {
			t.Errorf("%s: code %d, ran %q\n%s", form, code, w.ran(), &w.stderr)
		}
		if out := w.stdout.String(); strings.Contains(out, testToken) || !strings.Contains(out, "port") {
			t.Errorf("%s: standard output:\n%s", form, out)
		}
		if notes := w.stderr.String(); strings.Contains(notes, testToken) || !strings.Contains(notes, "token") {
			t.Errorf("%s: standard error:\n%s", form, notes)
		}
	}
	if code := w.run(t, "fileserver -w DIR --generate k8s_yaml"); code != 2 || w.stdout.Len() > 0 {
		t.Errorf("a folder in a cluster: code %d\n%s", code, &w.stdout)
	}
}
