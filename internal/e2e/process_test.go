//go:build linux

package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// A program is what to start.
type program struct {
	argv []string
	env  []string            // added to a small environment without secrets of the machine
	dir  string              // where it runs; "" for a temporary folder
	user *syscall.Credential // who it runs as; nil for who runs the tests
	in   *os.File            // its standard input; nil for none
}

// A process is a program that a test started. It ends with the test at the latest, and a test that fails shows the
// end of its output.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *output       // standard output and error as they come
	std  *output       // standard output alone
	done chan struct{} // closed when the process has ended and its output is complete
}

// patience bounds every wait for something that ought to happen soon, on a busy machine too.
const patience = 30 * time.Second

// underRace has a program that was built with the race detector end at the first race, and not wait a second at each end.
const underRace = "GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0"

func start(t *testing.T, p program) *process {
	t.Helper()
	if path(p.argv[0]) == "" {
		t.Fatalf("%s is missing", p.argv[0])
	}
	if p.dir == "" {
		p.dir = t.TempDir()
	}
	r := &process{name: p.argv[0], out: newOutput(), std: newOutput(), done: make(chan struct{})}
	r.cmd = exec.Command(path(p.argv[0]), p.argv[1:]...)
	r.cmd.Dir = p.dir
	r.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "TMPDIR=" + p.dir, "LC_ALL=C.UTF-8",
		"STATE_DIRECTORY=" + filepath.Join(p.dir, "state"), // root's would be the machine's
		underRace,
	}, p.env...)
	if p.in != nil { // a nil file would not be a nil reader
		r.cmd.Stdin = p.in
	}
	r.cmd.Stdout, r.cmd.Stderr = both{r.out, r.std}, r.out
	// Pdeathsig would go by the thread that starts the process; the namespace's process tree is what ends orphans.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.user}
	r.cmd.WaitDelay = 5 * time.Second // for grandchildren that keep the output open
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", r.name, err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait() // the state says it all
	}()
	t.Cleanup(func() {
		select {
		case <-r.done:
		default:
			r.stop(t)
		}
		if t.Failed() {
			t.Logf("%v ended with %v; its output:\n%s", r.cmd.Args, r.cmd.ProcessState, tail(r.out.String(), 60))
		}
	})
	return r
}

// both writes to two outputs.
type both [2]*output

func (b both) Write(p []byte) (int, error) {
	_, _ = b[1].Write(p) // never fails
	return b[0].Write(p)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// line waits for a match in the output, and fails the test if the process ends before.
func (p *process) line(t *testing.T, pattern string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("waited long enough"))
	defer cancel()
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	go func() {
		select {
		case <-p.done:
			ended(errors.New("the process has ended"))
		case <-ctx.Done():
		}
	}()
	match, err := p.out.wait(ctx, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatalf("%v: %v\n%s", p.cmd.Args, err, tail(p.out.String(), 40))
	}
	return match
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal %s to %s: %v", s, p.name, err)
	}
}

// wait waits for the end and returns the exit code, -1 if a signal ended it.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		t.Errorf("%v does not end", p.cmd.Args)
		p.signal(t, syscall.SIGQUIT) // a Go program prints where it hangs
		select {
		case <-p.done:
		case <-time.After(2 * time.Second):
			p.kill(t)
		}
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop asks the process to end and returns its exit code.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	return p.wait(t)
}

// kill ends the process with its group, without a chance to say goodbye.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-p.pid(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("kill %s: %v", p.name, err)
	}
	<-p.done
}

// result is how a program ended that ran to its end.
type result struct {
	code        int
	out, stdout string
}

// complete runs a program to its end.
func complete(t *testing.T, p program) result {
	t.Helper()
	r := start(t, p)
	code := r.wait(t)
	return result{code, r.out.String(), r.std.String()}
}

// must runs a program that has to succeed, and returns its standard output.
func must(t *testing.T, p program) string {
	t.Helper()
	r := complete(t, p)
	if r.code != 0 {
		t.Fatalf("%v: exit code %d\n%s", p.argv, r.code, tail(r.out, 40))
	}
	return r.stdout
}
