package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v3"
)

// brokenFiles puts the broken files into the working directory: those of testdata/check and those that cannot be kept
// there. It returns their names in order.
func brokenFiles(t *testing.T) []string {
	t.Helper()
	t.Chdir("testdata/check")
	kept, err := filepath.Glob("*.yaml")
	if err != nil || len(kept) < 30 {
		t.Fatalf("%d broken files: %v", len(kept), err)
	}
	dir := t.TempDir()
	for _, name := range kept {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), b)
	}
	t.Chdir(dir)
	write(t, "binary-junk.yaml", []byte("entrypoints:\n  - name: \x7fELF\x02\x01\x01\x00\xff\xfe\n"))
	write(t, "utf-16.yaml", []byte("\xff\xfee\x00n\x00t\x00"))
	write(t, "ten-megabytes.yaml", bytes.Repeat([]byte("# ten megabytes\n"), 10<<20/16))
	if err := os.Mkdir("folder.yaml", 0o700); err != nil {
		t.Fatal(err)
	}
	// Whoever runs this, root included, cannot open a link to itself.
	if err := os.Symlink("unreadable.yaml", "unreadable.yaml"); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return append(all, "missing.yaml")
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// golden compares text with a file of testdata, or writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%s (go test ./internal/cli -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: want -, got + (go test ./internal/cli -update writes it)\n%s", path, diff)
	}
}

func TestCheckTellsAllThatIsWrong(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	noPlace := regexp.MustCompile(`^(folder|unreadable|ten-megabytes|missing)\.yaml: [a-z].+; .+`)
	line := regexp.MustCompile(`^[\w-]+\.yaml:[1-9]\d*:[1-9]\d*: .+; .+`)
	var all strings.Builder
	for _, name := range brokenFiles(t) {
		code := w.runWords(t, "check", name)
		if code != 2 || w.stdout.Len() > 0 {
			t.Errorf("check %s: code %d, output %q", name, code, &w.stdout)
		}
		lines := strings.Split(strings.TrimSuffix(w.stderr.String(), "\n"), "\n")
		for _, l := range lines[:len(lines)-1] {
			if !line.MatchString(l) && !noPlace.MatchString(l) {
				t.Errorf("no place, fault and remedy: %s", l)
			}
		}
		fmt.Fprintf(&all, "== %s\n%s", name, &w.stderr)
	}
	golden(t, filepath.Join(here, "testdata/check.golden"), all.String())
}

func TestCheckForPrograms(t *testing.T) {
	w := newWorld(t)
	brokenFiles(t)
	if code := w.runWords(t, "check", "seed-unknown-upstream.yaml", "tabs.yaml", "--output", "json"); code != 2 || w.stderr.Len() > 0 {
		t.Fatalf("code %d\n%s", code, &w.stderr)
	}
	var got []finding
	if err := json.Unmarshal(w.stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := []finding{
		{
			File: "seed-unknown-upstream.yaml", Line: 7, Column: 19, Severity: "error", Path: "entrypoints[0].routes[0].upstream",
			Message: `there is no upstream "my_test_server"`, Remedy: `did you mean "my_test_servers"?`,
		},
		{
			File: "seed-unknown-upstream.yaml", Line: 11, Column: 14, Severity: "error", Path: "upstreams[0].balance",
			Message: `"roundrobin" is unknown`, Remedy: "did you mean round_robin?",
		},
		{File: "tabs.yaml", Line: 2, Column: 1, Severity: "error", Message: "a tab indents this line", Remedy: "YAML indents with spaces"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

const rightFile = `
token_file: token
port: 8001
entrypoints:
  - name: web
    addr: 127.0.0.1:80
    queue_timeout: 4s
    routes:
      - {match: {source: 10.0.0.0/8}, upstream: app}
      - {match: {source: [10.1.0.0/16, 10.2.3.4]}, upstream: name/laptop}
      - upstream: app
  - {name: dns, addr: "127.0.0.1:53", protocol: udp, routes: [{upstream: dns}]}
upstreams:
  - {name: app, members: [{address: 10.0.0.1:80}], queue: {max: 3}, close_on_down: true}
  - {name: spare, members: [{address: 10.0.0.1:80}]}
  - {name: dns, members: [{address: 10.0.0.1:53, max_conns: 100}], queue: {max: 3}}
`

func TestCheckOfARightFile(t *testing.T) {
	w := newWorld(t)
	t.Chdir(w.dir)
	write(t, "culvert.yaml", []byte(rightFile))
	if code := w.run(t, "check culvert.yaml"); code != 0 {
		t.Fatalf("code %d", code)
	}
	if got, want := w.stdout.String(), "culvert.yaml is right: 2 entrypoints, 4 routes, 3 upstreams, 3 members\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := `culvert.yaml:7:20: entrypoints[0].queue_timeout: warning: has no effect; add when_empty: queue, or leave it out
culvert.yaml:10:17: entrypoints[0].routes[1].match: warning: matches nobody who gets this far: the route "app" in line 9 takes them; put it above that one, or leave it out
culvert.yaml:14:59: upstreams[0].queue: warning: nobody ever waits, because no member has max_conns; give the members max_conns, or leave it out
culvert.yaml:14:84: upstreams[0].close_on_down: warning: has no effect, because nothing checks the members; add health, or leave it out
culvert.yaml:15:12: upstreams[1].name: warning: no route goes to the upstream "spare"; leave it out, or name it in a route
culvert.yaml:16:75: upstreams[2].queue: warning: nobody ever waits: a flow of UDP that finds no member with room is dropped; leave it out
`
	if diff := cmp.Diff(want, w.stderr.String()); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// What a file names is looked at, unless it is on another machine.
func TestCheckLooksAtTheFilesThatAreNamed(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	write(t, "culvert.yaml", []byte(rightFile))
	if code := w.run(t, "check culvert.yaml"); code != 2 || !strings.Contains(w.stderr.String(), "culvert.yaml:2:13: token_file: read secret: open token: no such file") {
		t.Errorf("code %d\n%s", code, &w.stderr)
	}
	if code := w.run(t, "check culvert.yaml --files=false"); code != 0 {
		t.Errorf("with --files=false: code %d\n%s", code, &w.stderr)
	}
}

// The schema is in the repository for editors to fetch; the program prints the same.
const schemaFile = "../../docs/culvert.schema.json"

func TestSchema(t *testing.T) {
	w := newWorld(t)
	if code := w.run(t, "check --schema"); code != 0 {
		t.Fatalf("code %d\n%s", code, &w.stderr)
	}
	golden(t, schemaFile, w.stdout.String())
	var schema jsonschema.Schema
	if err := json.Unmarshal(w.stdout.Bytes(), &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	valid := func(content []byte) error {
		var v any
		if err := yaml.Unmarshal(content, &v); err != nil {
			t.Fatal(err)
		}
		return resolved.Validate(v)
	}
	if err := valid([]byte(rightFile)); err != nil {
		t.Errorf("a right file: %v", err)
	}
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("examples %v, error %v", examples, err)
	}
	for _, name := range examples {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What needs no knowledge of what values mean to each other, an editor finds by the schema.
	for _, name := range []string{
		"seed-unknown-upstream", "seed-proxy-pass", "json-of-another-kind", "unknown-keys", "wrong-types", "missing-keys", "no-values",
		"members", "percent", "unknown-values", "proxy-protocol", "health", "a-list",
	} {
		b, err := os.ReadFile("testdata/check/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if valid(b) == nil {
			t.Errorf("%s.yaml is right by the schema", name)
		}
	}
}

func TestExamplesAreRight(t *testing.T) {
	w := newWorld(t)
	t.Chdir("../../examples")
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("examples %v, error %v", files, err)
	}
	for _, name := range files {
		if code := w.runWords(t, "check", name, "--files=false"); code != 0 || w.stderr.Len() > 0 {
			t.Errorf("check %s: code %d\n%s", name, code, &w.stderr)
		}
	}
}
