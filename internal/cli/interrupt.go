package cli

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// interruption turns signals into the end of a context: the first one asks for an orderly end, a second one ends the
// program at once.
type interruption struct {
	signals chan os.Signal
	code    atomic.Int32 // exit code of the first signal, 0 for none
	done    chan struct{}
}

// interruptible makes a context that ends at SIGINT or SIGTERM. At a second signal, exit is called with the code of that
// signal. The caller calls stop when its work is done.
func interruptible(parent context.Context, exit func(code int)) (ctx context.Context, i *interruption) {
	ctx, cancel := context.WithCancel(parent)
	i = &interruption{signals: make(chan os.Signal, 2), done: make(chan struct{})}
	signal.Notify(i.signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(i.done)
		defer cancel()
		for s := range i.signals {
			if i.code.CompareAndSwap(0, int32(exitCode(s))) {
				cancel()
				continue
			}
			exit(exitCode(s))
		}
	}()
	return ctx, i
}

// stop gives signals their usual effect again, and returns the exit code of the first one that came, or 0.
func (i *interruption) stop() int {
	signal.Stop(i.signals)
	close(i.signals)
	<-i.done
	return int(i.code.Load())
}

func exitCode(s os.Signal) int {
	if s == syscall.SIGTERM {
		return exitTerminated
	}
	return exitInterrupt
}
