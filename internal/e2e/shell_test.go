//go:build linux

package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// A shell is an SSH session that a person would have open: what is typed is answered with the number of the line and
// the process that answers, so that an answer proves that it is still the same session.
type shell struct {
	*process
	in    *os.File
	typed int
	pid   string // of the remote process
}

// startShell logs in, and has a first line answered.
func startShell(t *testing.T, s sshd, addr string) *shell {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	host, options := s.login(t, addr)
	argv := append(append([]string{"ssh", "-T"}, options...), host,
		`n=0; while read -r line; do n=$((n+1)); echo "$$ $n $line"; done`)
	sh := &shell{process: start(t, program{argv: argv, in: out}), in: in}
	out.Close() // ssh has its own
	sh.pid = sh.answered(t, sh.typeIn(t))
	return sh
}

// typeIn sends one line, and does not wait for its answer.
func (s *shell) typeIn(t *testing.T) (line int) {
	t.Helper()
	s.typed++
	if _, err := fmt.Fprintf(s.in, "word%d\n", s.typed); err != nil {
		t.Fatalf("the SSH session is over: %v", err)
	}
	return s.typed
}

// answered waits for the answer to a line, and returns who gave it.
func (s *shell) answered(t *testing.T, line int) (pid string) {
	t.Helper()
	return s.line(t, fmt.Sprintf(`(?m)^(\d+) %d word%[1]d$`, line))[1]
}

// echoes has one more line answered by the same process.
func (s *shell) echoes(t *testing.T) (took time.Duration) {
	t.Helper()
	begin := time.Now()
	if pid := s.answered(t, s.typeIn(t)); pid != s.pid {
		t.Errorf("process %s answers, it was %s", pid, s.pid)
	}
	return time.Since(begin)
}

// leave ends the input, and with it the session.
func (s *shell) leave(t *testing.T) {
	t.Helper()
	s.in.Close()
	if code := s.wait(t); code != 0 {
		t.Errorf("the SSH session ended with exit code %d", code)
	}
}

// A copying is an scp that runs.
type copying struct {
	*process
	to    string
	want  string // hash
	since time.Time
	had   int64 // at that moment
}

// startCopy makes a file of n bytes of the pattern, and copies it to the server with scp.
func startCopy(t *testing.T, s sshd, addr string, n int64) *copying {
	t.Helper()
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	file, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(file, newPattern(), n); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	c := &copying{to: filepath.Join(dir, "to"), want: patternHash(n), since: time.Now()}
	host, options := s.login(t, addr)
	c.process = start(t, program{argv: append(append([]string{"scp", "-c", "aes128-gcm@openssh.com"}, options...), from, host+":"+c.to)})
	return c
}

// copied is how much has arrived.
func (c *copying) copied() int64 {
	info, err := os.Stat(c.to)
	if err != nil {
		return 0
	}
	return info.Size()
}

// rate is how many megabytes a second have come since it was asked for last.
func (c *copying) rate() float64 {
	now, have := time.Now(), c.copied()
	defer func() { c.since, c.had = now, have }()
	return float64(have-c.had) / 1e6 / now.Sub(c.since).Seconds()
}

// reaches waits until so much has arrived.
func (c *copying) reaches(t *testing.T, n int64) {
	t.Helper()
	until(t, "scp has copied "+mebibytes(n), func() bool {
		select {
		case <-c.done:
			t.Fatalf("scp has ended:\n%s", tail(c.out.String(), 20))
		default:
		}
		return c.copied() >= n
	})
}

// arrives waits for the end, and compares.
func (c *copying) arrives(t *testing.T) {
	t.Helper()
	timer := time.NewTimer(5 * time.Minute)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	}
	if code := c.wait(t); code != 0 {
		t.Fatalf("scp: exit code %d\n%s", code, tail(c.out.String(), 20))
	}
	if got := fileHash(t, c.to); got != c.want {
		t.Errorf("the copy's hash: got %s, want %s", got, c.want)
	}
}

func TestShellSaysWhoAnswers(t *testing.T) {
	need(t, "sshd", "ssh", "ssh-keygen")
	s := startSSHD(t)
	sh := startShell(t, s, s.addr)
	sh.echoes(t)
	sh.leave(t)
	if regexp.MustCompile(`^\d+$`).FindString(sh.pid) == "" {
		t.Errorf("pid %q", sh.pid)
	}
}
