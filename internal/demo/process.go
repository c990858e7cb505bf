package demo

import (
	"bufio"
	"io"
	"log/slog"
	"os/exec"
)

// process is a client in a process of its own, so that killing it is killing it.
type process struct {
	executable string
	args       []string
	out        *slog.Logger

	cmd    *exec.Cmd
	logged chan struct{} // closed when its output has ended
}

func (p *process) start() error {
	p.cmd = exec.Command(p.executable, p.args...)
	stderr, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		p.cmd = nil
		return err
	}
	p.logged = make(chan struct{})
	go p.pass(stderr)
	return nil
}

// pass takes the client's log into the demo's.
func (p *process) pass(stderr io.Reader) {
	defer close(p.logged)
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		p.out.Debug("client says", "line", lines.Text())
	}
}

// stop kills the process and waits for its end. A process that is not running stays so.
func (p *process) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.logged
	_ = p.cmd.Wait() // killed, as it was told
	p.cmd = nil
}
