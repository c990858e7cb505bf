//go:build unix

package cli

import (
	"os"
	"syscall"
)

func wishSignals() map[os.Signal]wish {
	return map[os.Signal]wish{syscall.SIGHUP: reload, syscall.SIGUSR2: upgrade}
}
