package proc

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is a child of the benchmark. Stop must be called.
type Process struct {
	// Role says whose cost it is: server or client.
	Role string

	cmd   *exec.Cmd
	ended chan struct{}
}

// Spec is how to start a process. Its output goes to the end of the file Log.
type Spec struct {
	Role string
	Argv []string
	Dir  string
	Log  string
}

// Start starts a process in a group of its own. It ends with the benchmark, however that ends.
func Start(s Spec) (*Process, error) {
	out, err := os.OpenFile(s.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, out, out
	cmd.Env = append(os.Environ(), "HOME="+s.Dir) // nobody's own settings
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Role, err)
	}
	p := &Process{Role: s.Role, cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // How tells
		close(p.ended)
	}()
	return p, nil
}

// PID is the process's own id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Tree is the process and its descendants, as they are now.
func (p *Process) Tree() []int { return Tree(p.PID()) }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// How says how the process ended, once it has.
func (p *Process) How() string {
	<-p.ended
	return p.cmd.ProcessState.String()
}

// Signal sends a signal to the process and its descendants, each by its own id.
func (p *Process) Signal(sig syscall.Signal) {
	select {
	case <-p.ended: // its id may be someone else's by now
		return
	default:
	}
	for _, pid := range p.Tree() {
		_ = syscall.Kill(pid, sig)
	}
}

// Stop ends the process and its descendants, with a moment to end by themselves.
func (p *Process) Stop() {
	tree := p.Tree()
	p.Signal(syscall.SIGCONT)
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(500 * time.Millisecond):
		p.Signal(syscall.SIGKILL)
		<-p.ended
	}
	for _, pid := range tree[1:] { // that outlived their parent
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Run runs a command to its end and returns its output.
func Run(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", argv[0], err, out)
	}
	return string(out), nil
}
