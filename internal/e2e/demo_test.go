//go:build linux

package e2e

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDemoShowsThatNothingFailed(t *testing.T) {
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

func TestDemoEndsAtCtrlC(t *testing.T) {
	p := start(t, program{argv: []string{culvert(), "demo"}})
	p.line(t, `http://127\.0\.0\.1:\d+`)
	p.signal(t, syscall.SIGINT)
	if code := p.wait(t); code != 0 && code != 130 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(p.out.String(), "panic") {
		t.Error(p.out.String())
	}
}
