package trials

import (
	"os"
	"time"

	"culvert/bench/proc"
)

// Meter measures the CPU that a system's processes use from its start on, and what others use meanwhile.
type Meter struct {
	trial   *Trial
	pids    []int
	began   time.Time
	cpu     float64
	machine float64
	own     float64 // this program with all its children: everything that belongs to the benchmark
}

// Meter starts one.
func (t *Trial) Meter() *Meter {
	m := &Meter{trial: t, pids: append(t.ServerTree(), t.ClientTree()...)}
	m.began, m.cpu = time.Now(), proc.CPU(m.pids)
	m.machine, m.own = proc.Machine(), proc.CPU(proc.Tree(os.Getpid()))
	return m
}

// Stop gives the CPU seconds of server and client together, and how long it was measured.
func (m *Meter) Stop() (cpu float64, elapsed time.Duration) {
	cpu = proc.CPU(m.pids) - m.cpu
	elapsed = time.Since(m.began)
	others := proc.Machine() - m.machine - (proc.CPU(proc.Tree(os.Getpid())) - m.own)
	b := m.trial.Bench
	b.others[m.trial.row] = append(b.others[m.trial.row], max(0, others)/elapsed.Seconds())
	return cpu, elapsed
}

// ServerMemory is the server's resident bytes.
func (t *Trial) ServerMemory() int64 { return proc.Memory(t.ServerTree()) }

// ClientMemory is the clients' resident bytes.
func (t *Trial) ClientMemory() int64 { return proc.Memory(t.ClientTree()) }
