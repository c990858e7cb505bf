//go:build unix

package cli

import (
	"os"
	"syscall"
	"testing"
)

func TestTheFirstSignalEndsTheContextTheSecondTheProgram(t *testing.T) {
	for _, test := range []struct {
		signal os.Signal
		want   int
	}{{os.Interrupt, 130}, {syscall.SIGTERM, 143}} {
		exited := make(chan int, 1)
		ctx, i := interruptible(t.Context(), func(code int) { exited <- code })
		i.signals <- test.signal // as the system would
		<-ctx.Done()
		if len(exited) > 0 {
			t.Errorf("%s: exited at the first signal", test.signal)
		}
		i.signals <- test.signal
		if code := <-exited; code != test.want {
			t.Errorf("%s: exit code %d, want %d", test.signal, code, test.want)
		}
		if code := i.stop(); code != test.want {
			t.Errorf("%s: first signal's code %d, want %d", test.signal, code, test.want)
		}
	}
}

func TestNoSignalNoCode(t *testing.T) {
	ctx, i := interruptible(t.Context(), func(int) { t.Error("exited") })
	if ctx.Err() != nil {
		t.Error("the context ended by itself")
	}
	if code := i.stop(); code != 0 {
		t.Errorf("code %d", code)
	}
}
