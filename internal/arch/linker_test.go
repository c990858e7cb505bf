package arch

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The linker drops exported methods that nothing calls, unless something reachable looks methods up by a name that is
// known at run time only, as text/template does. Then it keeps every exported method of every reachable type: half a
// megabyte of a Redis client becomes ten.

func TestWhoImportsTemplates(t *testing.T) {
	// Importing is not yet linking: TestLinkerDropsUnusedMethods tells whether any of it is reachable.
	allowed := map[string][]string{
		// cobra hands templates to text/template only if a program sets one, which ours does not; its own help and
		// usage are plain functions since v1.9.
		"text/template": {"github.com/spf13/cobra"},
	}
	for _, p := range list(t, "-deps", "./cmd/culvert") {
		if p.Standard {
			continue // html/template imports text/template: what counts is who brings either in
		}
		for _, template := range []string{"text/template", "html/template"} {
			if slices.Contains(p.Imports, template) && !slices.Contains(allowed[template], p.ImportPath) {
				t.Errorf("%s imports %s", p.ImportPath, template)
			}
		}
	}
}

func TestLinkerDropsUnusedMethods(t *testing.T) {
	// -dumpdep prints every edge that makes a symbol reachable, and marks those that switch the dropping off.
	out := filepath.Join(t.TempDir(), "culvert")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-dumpdep", "-o", out, "./cmd/culvert")
	cmd.Dir = "../.."
	dump, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%.2000s", err, dump)
	}
	edges := 0
	for line := range strings.Lines(string(dump)) {
		from, to, ok := strings.Cut(strings.TrimSpace(line), " -> ")
		if !ok {
			continue
		}
		edges++
		if strings.Contains(to, "<ReflectMethod>") {
			t.Errorf("%s keeps every exported method in the binary; reached from %s", to, from)
		}
	}
	if edges == 0 {
		t.Fatalf("the linker printed no edges: has -dumpdep changed?\n%.2000s", dump)
	}
}
