// Command lb measures the built culvert as a load balancer, beside Debian's HAProxy and nginx, on loopback, and prints
// medians, ratios and gates as Markdown.
//
// Each row runs in rounds, the systems one after the other, every second round in reverse order. CPU is that of the
// system's processes; the load and the service are processes apart. Figures of different runs do not compare; ratios of
// one run do. HAProxy runs with a thread for each core, as Debian has it, and with one.
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
		fmt.Fprintln(os.Stderr, "lb:", err)
		os.Exit(1) //nolint:forbidigo // a main package of its own
	}
}

// run is either one of the processes that a benchmark consists of, or the benchmark.
func run(ctx context.Context, args []string, out, errs io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "service":
			return trials.RunService(ctx, args[1:], out)
		case "packets":
			return runPackets(ctx, args[1:], out)
		case "questions":
			return runQuestions(ctx, args[1:], out)
		}
	}
	s, err := parse(args, errs)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM) // a part just ends
	defer stop()
	b, err := trials.New(ctx, plan(), s, errs)
	if err != nil {
		return err
	}
	defer b.Close()
	err = b.Run(ctx)
	return errors.Join(err, b.Report(ctx, out))
}

func parse(args []string, errs io.Writer) (trials.Settings, error) {
	fs := flag.NewFlagSet("lb", flag.ContinueOnError)
	fs.SetOutput(errs)
	return trials.Parse(fs, plan(), args)
}
