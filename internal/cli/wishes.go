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

// hear grants wishes as their signals come, one at a time, until stop is called, which waits for the one that is being
// granted. A signal without a wish keeps its usual effect.
func hear(wishes map[wish]func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	granted := make(map[os.Signal]func())
	for s, w := range wishSignals() {
		if do := wishes[w]; do != nil {
			granted[s] = do
			signal.Notify(signals, s)
		}
	}
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for s := range signals {
			granted[s]()
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		hearing.Wait()
	}
}
