package main

import (
	"os"
	"time"

	"culvert/bench/proc"
)

// meter measures the CPU that a system's processes use from its start on, and what others use meanwhile.
type meter struct {
	trial   *trial
	pids    []int
	began   time.Time
	cpu     float64
	machine float64
	own     float64 // this program with all its children: everything that belongs to the benchmark
}

func (t *trial) meter() *meter {
	m := &meter{trial: t, pids: append(t.ServerTree(), t.ClientTree()...)}
	m.began, m.cpu = time.Now(), proc.CPU(m.pids)
	m.machine, m.own = proc.Machine(), proc.CPU(proc.Tree(os.Getpid()))
	return m
}

// stop gives the CPU seconds of server and client together, and how long it was measured.
func (m *meter) stop() (cpu float64, elapsed time.Duration) {
	cpu = proc.CPU(m.pids) - m.cpu
	elapsed = time.Since(m.began)
	others := proc.Machine() - m.machine - (proc.CPU(proc.Tree(os.Getpid())) - m.own)
	b := m.trial.bench
	b.others[m.trial.row] = append(b.others[m.trial.row], max(0, others)/elapsed.Seconds())
	return cpu, elapsed
}

// serverMemory and clientMemory are resident bytes.
func (t *trial) serverMemory() int64 { return proc.Memory(t.ServerTree()) }

func (t *trial) clientMemory() int64 { return proc.Memory(t.ClientTree()) }
