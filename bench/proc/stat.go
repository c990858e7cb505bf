// Package proc starts processes and reads what they use from /proc.
//
// A figure is of a whole tree: a process, its children and theirs, and what those that have ended used. Times are CPU
// seconds of user and kernel together, in steps of 10 ms; memory is in bytes.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// tick is the unit of /proc's times: USER_HZ is 100 on every Linux.
const tick = 0.01

// stat is what the benchmark needs of /proc/PID/stat.
type stat struct {
	parent int
	cpu    float64 // seconds, with those of children that have ended and were waited for
}

var errStat = errors.New("not a line of /proc/PID/stat")

// parseStat reads a line whose second field, the name, may hold spaces and parentheses.
func parseStat(line []byte) (stat, error) {
	fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
	if len(fields) < 15 {
		return stat{}, errStat
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, fmt.Errorf("%w: parent %q", errStat, fields[1])
	}
	s := stat{parent: parent}
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("%w: time %q", errStat, f)
		}
		s.cpu += float64(ticks) * tick
	}
	return s, nil
}

// Tree lists a process and all that descend from it.
func Tree(root int) []int {
	children := map[int][]int{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended meanwhile
		}
		if s, err := parseStat(line); err == nil {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	return descend(root, children)
}

func descend(root int, children map[int][]int) []int {
	all := []int{root}
	for i := 0; i < len(all); i++ {
		for _, c := range children[all[i]] {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

// CPU is the seconds that processes have used so far.
func CPU(pids []int) float64 {
	var sum float64
	for _, pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		if s, err := parseStat(line); err == nil {
			sum += s.cpu
		}
	}
	return sum
}

// Machine is the seconds that everybody on this machine has used, interrupts included.
func Machine() float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	return parseMachine(string(text))
}

func parseMachine(text string) float64 {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	var sum float64
	for i, f := range fields {
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq
			ticks, _ := strconv.ParseFloat(f, 64)
			sum += ticks * tick
		}
	}
	return sum
}
