//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "culvert/internal/cli" // a change of the code is a change of these tests, for the test cache

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// What TestMain tells the tests, and the outer run of the tests the inner one.
const (
	binKey    = "CULVERT_E2E_BIN"       // the culvert under test
	insideKey = "CULVERT_E2E_NAMESPACE" // set in the network namespace of the tests
	longKey   = "CULVERT_TEST_LONG"     // many more rounds
	serveKey  = "CULVERT_E2E_SERVE"     // set where this program is a member of an upstream: see startMember
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if what := os.Getenv(serveKey); what != "" {
		return 0, serveMember(what)
	}
	if os.Getenv(binKey) == "" {
		dir, err := os.MkdirTemp("", "culvert-e2e-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // some servers run as another user
			return 0, err
		}
		bin := filepath.Join(dir, "culvert")
		if err := build(bin); err != nil {
			return 0, err
		}
		if err := os.Setenv(binKey, bin); err != nil {
			return 0, err
		}
	}
	if os.Geteuid() == 0 && os.Getenv(insideKey) == "" {
		return runInNamespace()
	}
	if os.Getenv(insideKey) != "" {
		if err := loopbackUp(); err != nil {
			return 0, fmt.Errorf("bring lo up: %w", err)
		}
	}
	// A process whose parent ends becomes a child of this one: nothing escapes the count below.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("become a subreaper: %w", err)
	}
	code = m.Run()
	if left := leftProcesses(); len(left) > 0 {
		return 0, fmt.Errorf("processes left behind:\n  %s", strings.Join(left, "\n  "))
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			return 0, fmt.Errorf("the tests themselves left goroutines: %w", err)
		}
	}
	return code, nil
}

// build makes the binary as the Makefile does, with the race detector if the tests have it.
func build(bin string) error {
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", bin}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "culvert/cmd/culvert")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build culvert: %w\n%s", err, out)
	}
	return nil
}

// runInNamespace runs this test binary again, with a network of its own.
func runInNamespace() (code int, err error) {
	runtime.LockOSThread() // Pdeathsig goes by the thread that started the child
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideKey+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run in a network namespace: %w", err)
	}
	return 0, nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// leftProcesses lists the children that still run. It gives those that are about to end a moment, and reaps the rest.
func leftProcesses() []string {
	deadline := time.Now().Add(5 * time.Second)
	for {
		var left []string
		for _, pid := range children(os.Getpid()) {
			if reaped, _ := unix.Wait4(pid, nil, unix.WNOHANG, nil); reaped != pid {
				left = append(left, strconv.Itoa(pid)+" "+commandLine(pid))
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		<-time.After(10 * time.Millisecond)
	}
}

// long says whether the tests may take long; rounds picks between two numbers of rounds by it.
func long() bool { return os.Getenv(longKey) != "" }

// onlyLong skips a test that is nothing but a long wait.
func onlyLong(t *testing.T) {
	t.Helper()
	if !long() {
		t.Skipf("takes long: only with %s=1", longKey)
	}
}

func rounds(short, many int) int {
	if long() {
		return many
	}
	return short
}
