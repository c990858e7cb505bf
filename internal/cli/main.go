package cli

import (
	"context"
	"io"
	"os"
	"time"

	"culvert/internal/config"
)

// Main runs the command that args name, without the program's name, on the real world, and returns the exit code.
// SIGINT and SIGTERM end it in order; a second one ends it at once. A server or client that ended in order because it was
// asked to has done its work: its code is 0.
func Main(args []string) int {
	ctx, interrupted := interruptible(context.Background(), os.Exit)
	code := Execute(ctx, production(), args)
	if by := interrupted.stop(); by != 0 && code == exitFailure {
		return by
	}
	return code
}

func production() Deps {
	dir, err := os.Getwd()
	if err != nil {
		dir = "" // relative paths in a generated unit are then refused
	}
	return Deps{
		Build:    ReadBuild(),
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Terminal: colours(os.Stderr),
		Environment: config.Environment{
			Lookup: os.LookupEnv,
			Root:   os.Geteuid() == 0,
		},
		Dir:           dir,
		Now:           time.Now,
		RunServer:     runServer,
		RunClient:     runClient,
		RunFileserver: runFileserver,
		RunDivert:     runDivert,
		RunDemo:       runDemo,
	}
}

// colours says whether a file is a terminal that colours are wanted on. See https://no-color.org.
func colours(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)
}

// isTerminal says whether what is written to w can be read by a person as it comes.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
