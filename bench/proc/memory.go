package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is the resident bytes of processes.
func Memory(pids []int) int64 {
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		sum += parseRollup(string(text))
	}
	return sum
}

// parseRollup reads the resident bytes out of /proc/PID/smaps_rollup.
func parseRollup(text string) int64 {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "Rss:" && fields[2] == "kB" {
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
