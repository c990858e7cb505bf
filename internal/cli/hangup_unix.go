//go:build unix

package cli

import (
	"os"
	"os/signal"
	"syscall"
)

// onHangup calls reload at each SIGHUP, one at a time, until the function that it gives is called.
func onHangup(reload func()) (stop func()) {
	signals := make(chan os.Signal, 1) // more that come meanwhile ask for the same
	signal.Notify(signals, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range signals {
			reload()
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}
