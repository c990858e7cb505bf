package cli

import (
	"os"
	"os/signal"
	"sync"
)

// wish is what a signal asks of a server beside its end.
type wish uint8

const (
	reload  wish = iota // SIGHUP
	upgrade             // SIGUSR2
)

// wishes are signals that are kept from their usual effect until there is somebody to grant them: one that comes while a
// server starts is granted when it serves.
type wishes struct {
	signals chan os.Signal
	hearing sync.WaitGroup
}

// hear keeps the signals that are wishes, until stop is called.
func hear() *wishes {
	kinds := wishSignals()
	w := &wishes{signals: make(chan os.Signal, max(1, len(kinds)))}
	for s := range kinds {
		signal.Notify(w.signals, s)
	}
	return w
}

// grant grants wishes as they come, one at a time.
func (w *wishes) grant(granted map[wish]func()) {
	kinds := wishSignals()
	w.hearing.Go(func() {
		for s := range w.signals {
			granted[kinds[s]]()
		}
	})
}

// stop waits for the wish that is being granted, and gives signals their usual effect again.
func (w *wishes) stop() {
	signal.Stop(w.signals)
	close(w.signals)
	w.hearing.Wait()
}
