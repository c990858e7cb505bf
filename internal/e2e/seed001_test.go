//go:build linux

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The command lines of seed 001, with the program's name changed and their flags and ports as printed. Each script has
// those ports to itself: as root in the network namespace of the tests, else only where nobody listens on them.

func TestSeed001HTTP(t *testing.T) {
	need(t, "curl", "prometheus", "shasum")
	runScript(t, "seed001_http.txtar", "8000", "8080", "8123", "9090")
}

func TestSeed001TCP(t *testing.T) {
	need(t, "curl")
	runScript(t, "seed001_tcp.txtar", "2222", "8000", "8001", "8123")
}

func runScript(t *testing.T, script string, ports ...string) {
	t.Helper()
	for _, p := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort("", p))
		if err != nil {
			t.Skipf("port %s of the seed is taken: %v", p, err)
		}
		l.Close()
	}
	bin := t.TempDir()
	if err := os.Symlink(culvert(), filepath.Join(bin, "culvert")); err != nil {
		t.Fatal(err)
	}
	// Run's subtests are parallel: this one keeps two scripts from running at once.
	t.Run("script", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Files:               []string{filepath.Join("testdata", "script", script)},
			RequireExplicitExec: true,
			Setup: func(e *testscript.Env) error {
				e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
				e.Setenv("STATE_DIRECTORY", filepath.Join(e.WorkDir, "state")) // root's would be the machine's
				return nil
			},
			Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
				"export": export,
				"retry":  retry,
			},
		})
	})
}

// export NAME sets a variable to the output of the command before.
func export(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: export NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// retry PATTERN PROGRAM [ARG...] runs a program until it succeeds and its output matches.
func retry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: retry PATTERN PROGRAM [ARG...]")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	deadline := time.Now().Add(time.Minute)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && pattern.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v: %v, and no match of %q in\n%s%s", args[1:], err, args[0], out, ts.ReadFile("stderr"))
		}
		<-ticker.C
	}
}
