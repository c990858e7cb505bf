//go:build linux

package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDemoShowsThatNothingFailed(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	r := complete(t, program{argv: []string{culvert(), "demo", "--for", "6s"}})
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s", r.code, r.out)
	}
	if took := time.Since(begin); took < 6*time.Second || took > patience {
		t.Errorf("--for 6s took %v", took)
	}
	for _, want := range []string{`http://127\.0\.0\.1:\d+`, `(?s)is killed .*client one [1-9]\d* client two 0\n.* started again`, `(?s)In 6 s.*http .*failed 0 .*tcp .*failed 0 `} {
		if !regexp.MustCompile(want).MatchString(r.stdout) {
			t.Errorf("the output has nothing like %q", want)
		}
	}
	if t.Failed() {
		t.Log(r.out)
	}
}

// However the demo is ended, nothing of it is left: it has an authority's key and a token.
func TestDemoEndsAndLeavesNothing(t *testing.T) {
	left := func(t *testing.T, dir string) {
		t.Helper()
		if left, err := filepath.Glob(dir + "/*demo*"); err != nil || len(left) > 0 {
			t.Errorf("it left %q, %v", left, err)
		}
	}
	for name, s := range map[string]syscall.Signal{"Ctrl-C": syscall.SIGINT, "SIGTERM": syscall.SIGTERM, "the terminal closes": syscall.SIGHUP} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := start(t, program{argv: []string{culvert(), "demo"}, dir: dir})
			p.line(t, `http://127\.0\.0\.1:\d+`)
			p.signal(t, s)
			if code := p.wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if strings.Contains(p.out.String(), "panic") {
				t.Error(p.out.String())
			}
			left(t, dir)
		})
	}
	t.Run("nobody reads on", func(t *testing.T) {
		dir := t.TempDir()
		must(t, program{argv: []string{"sh", "-c", `"$0" demo | head -n 1`, culvert()}, dir: dir})
		left(t, dir)
	})
}
