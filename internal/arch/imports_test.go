package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	module   = "culvert"
	internal = module + "/internal/"
)

// listed is what `go list -json` tells of a package, as far as it is asked here.
type listed struct {
	ImportPath   string
	Dir          string
	Standard     bool
	Imports      []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

// list runs `go list -json` with arguments in the root of the module.
func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list %v: %v\n%s", args, err, exit.Stderr)
		}
		t.Fatalf("go list %v: %v", args, err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("go list %v: %v", args, err)
		}
		all = append(all, p)
	}
}

// short is the name of one of the module's packages in the table, "" for a package of someone else.
func short(path string) string {
	if s, ok := strings.CutPrefix(path, internal); ok {
		return s
	}
	if s, ok := strings.CutPrefix(path, module+"/"); ok {
		return s
	}
	return ""
}

func TestTableNamesOnlyRowsAbove(t *testing.T) {
	var above []string
	for _, r := range table() {
		if slices.Contains(above, r.pkg) {
			t.Errorf("%s stands in the table twice", r.pkg)
		}
		for _, u := range r.uses {
			if !slices.Contains(above, u) {
				t.Errorf("%s may use %s, which is not above it", r.pkg, u)
			}
		}
		above = append(above, r.pkg)
	}
}

func TestImportsFollowTheTable(t *testing.T) {
	packages := map[string]listed{}
	for _, p := range list(t, "./...") {
		packages[short(p.ImportPath)] = p
	}
	for _, r := range table() {
		p, ok := packages[r.pkg]
		if !ok {
			t.Errorf("%s is in the table but not in the tree", r.pkg)
			continue
		}
		delete(packages, r.pkg)
		var uses []string
		for _, path := range p.Imports {
			if s := short(path); s != "" {
				uses = append(uses, s)
			}
		}
		for _, u := range uses {
			if !slices.Contains(r.uses, u) {
				t.Errorf("%s imports %s, which its row does not allow", r.pkg, u)
			}
		}
		for _, u := range r.uses {
			if !slices.Contains(uses, u) {
				t.Errorf("%s may import %s but does not: take it from its row", r.pkg, u)
			}
		}
	}
	for name := range packages {
		t.Errorf("%s is in the tree but not in the table", name)
	}
}
