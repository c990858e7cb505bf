//go:build unix

package handover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Self is this process's own program: the path it was called by, so that a link which is set to a new version leads there.
func Self() (Program, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		if path, err = os.Executable(); err != nil {
			return Program{}, fmt.Errorf("find this program: %w", err)
		}
	}
	return Program{path, os.Args}, nil
}

// Successor is a process that is ready to take this one's place.
type Successor struct {
	sockets *Sockets
	process *os.Process
	line    net.Conn
	ended   chan struct{} // closed when the process has ended, with state set
	state   *os.ProcessState
}

// Upgrade starts the program with all sockets and returns when it is ready to take over. Until the context ends it may take
// its time. On failure the new process is gone, and this one goes on as before.
func (s *Sockets) Upgrade(ctx context.Context, p Program) (*Successor, error) {
	if os.Getpid() == 1 {
		return nil, errors.New("this is process 1 of a container, which ends with it: start a new container in its place")
	}
	done, err := s.freeze()
	if err != nil {
		return nil, err
	}
	succ, err := s.start(p)
	if err == nil {
		if err = succ.awaitReady(ctx); err != nil {
			succ.kill()
		}
	}
	done(err == nil)
	if err != nil {
		return nil, err
	}
	return succ, nil
}

// freeze has whoever wants a new socket wait until done is called.
func (s *Sockets) freeze() (done func(replaced bool), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.turn:
	default:
		return nil, fmt.Errorf("this process has not taken over from process %d yet; try again in a moment", s.from.pid)
	}
	switch {
	case s.replaced:
		return nil, ErrReplaced
	case s.upgrading != nil:
		return nil, errors.New("an upgrade is under way already")
	}
	ended := make(chan struct{})
	s.upgrading = ended
	return func(replaced bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.upgrading, s.replaced = nil, replaced
		close(ended)
	}, nil
}

// start runs the program with a copy of each socket. The descriptors are taken as they are: those of os.File could change
// the blocking mode, which both processes share.
func (s *Sockets) start(p Program) (*Successor, error) {
	syscall.ForkLock.RLock() // nobody else's process is to inherit the line
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(pair[0])
		syscall.CloseOnExec(pair[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("line to the new process: %w", err)
	}
	files := []uintptr{0, 1, 2, uintptr(pair[1])}
	defer func() {
		for _, fd := range files[firstFD:] {
			_ = unix.Close(int(fd))
		}
	}()
	line, err := fileConn(pair[0])
	if err != nil {
		return nil, fmt.Errorf("line to the new process: %w", err)
	}
	in := inheritance{Parent: os.Getpid()}
	s.mu.Lock()
	for _, k := range s.all() {
		fd, err := duplicate(k.held)
		if err != nil {
			continue // closed just now
		}
		files = append(files, uintptr(fd))
		in.Sockets = append(in.Sockets, k)
	}
	s.mu.Unlock()
	value, err := json.Marshal(in)
	if err != nil {
		_ = line.Close()
		return nil, err
	}
	pid, err := syscall.ForkExec(p.Path, p.Args, &syscall.ProcAttr{Env: environment(string(value)), Files: files})
	if err != nil {
		_ = line.Close()
		return nil, fmt.Errorf("start %s: %w", p.Path, err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		_ = line.Close()
		return nil, fmt.Errorf("find process %d: %w", pid, err)
	}
	succ := &Successor{sockets: s, process: process, line: line, ended: make(chan struct{})}
	go func() { // ends with the new process
		succ.state, _ = process.Wait()
		close(succ.ended)
	}()
	return succ, nil
}

func duplicate(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return 0, cerr
	}
	return fd, err
}

// environment is this process's own, without what systemd meant for it alone.
func environment(value string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case variable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID":
		default:
			env = append(env, kv)
		}
	}
	return append(env, variable+"="+value)
}

func (c *Successor) awaitReady(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = c.line.SetReadDeadline(time.Unix(1, 0)) })()
	word, err := bufio.NewReader(c.line).ReadString('\n')
	switch {
	case word == wordReady:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the new process was not ready in time: %w", context.Cause(ctx))
	case err == nil:
		return fmt.Errorf("the new process said %.40q", word)
	}
	select {
	case <-c.ended:
		return fmt.Errorf("the new process ended before it was ready, with %s; its own message says why", c.state)
	case <-time.After(time.Second):
		return fmt.Errorf("the new process, %d, does not know how to take over: %w", c.process.Pid, err)
	}
}

// PID is the new process's.
func (c *Successor) PID() int { return c.process.Pid }

// Leave gives the visitors to the new process, and is to be called when this one has stopped accepting, or will at once. An
// error says that the new process is gone, and this one must go on.
func (c *Successor) Leave() error {
	select {
	case <-c.ended:
		c.sockets.mu.Lock()
		c.sockets.replaced = false
		c.sockets.mu.Unlock()
		_ = c.line.Close()
		return fmt.Errorf("the new process ended, with %s; its own message says why", c.state)
	default:
	}
	_ = c.line.SetWriteDeadline(time.Now().Add(time.Second))
	_, err := c.line.Write([]byte(wordTurn))
	_ = c.line.Close()
	if err != nil {
		return fmt.Errorf("the new process does not listen: %w", err)
	}
	return nil
}

// kill ends the new process and waits for its end.
func (c *Successor) kill() {
	_ = c.process.Kill()
	<-c.ended
	_ = c.line.Close()
}
