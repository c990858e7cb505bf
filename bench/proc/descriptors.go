package proc

import (
	"fmt"
	"os"
)

// Descriptors is how many descriptors processes have open.
func Descriptors(pids []int) int {
	n := 0
	for _, pid := range pids {
		files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // none of one that has ended
		n += len(files)
	}
	return n
}
