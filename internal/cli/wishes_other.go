//go:build !unix

package cli

import "os"

func wishSignals() map[os.Signal]wish { return nil }
