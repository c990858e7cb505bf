//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// need skips the test unless the programs, or files by their whole path, are there. Under CI=true nothing may be skipped: it fails instead.
// A test calls it itself, not through a helper: .ci/needs finds the names of what will be skipped in the source.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if path(p) != "" {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing, and under CI=true nothing may be skipped: see .ci/needs", p)
		}
		t.Skipf("%s is missing: see .ci/needs", p)
	}
}

// path finds a program, also where Debian keeps what is not for every user; "" if it is nowhere.
func path(program string) string {
	if p, err := exec.LookPath(program); err == nil {
		return p
	}
	if _, err := os.Stat(program); err == nil && filepath.IsAbs(program) {
		return program
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/lib/postgresql/*/bin"} {
		found, _ := filepath.Glob(filepath.Join(dir, program)) // the pattern is well-formed
		if len(found) > 0 {
			return found[len(found)-1]
		}
	}
	return ""
}
