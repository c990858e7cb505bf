// Command tunnel measures the built culvert as whole processes, beside Debian's ssh -R, HAProxy and nginx and beside a
// reference tunnel, on loopback, and prints medians, ratios and gates as Markdown.
//
// Each row runs in rounds, the systems one after the other, every second round in reverse order. CPU is that of the
// server's and the client's processes; the load and the service are processes apart. Figures of different runs do not
// compare; ratios of one run do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"culvert/bench/trials"
)

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2) //nolint:forbidigo // a main package of its own
	case err != nil:
		fmt.Fprintln(os.Stderr, "tunnel:", err)
		os.Exit(1) //nolint:forbidigo // a main package of its own
	}
}

// run is either one of the processes that a benchmark consists of, or the benchmark.
func run(ctx context.Context, args []string, out, errs io.Writer) error {
	if len(args) > 0 {
		if part, ok := parts()[args[0]]; ok {
			return part(ctx, args[1:], out)
		}
	}
	p, s, err := parse(args, errs)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM) // a part just ends
	defer stop()
	b, err := trials.New(ctx, p, s, errs)
	if err != nil {
		return err
	}
	defer b.Close()
	err = b.Run(ctx)
	return errors.Join(err, b.Report(ctx, out))
}
