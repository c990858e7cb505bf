package load

import (
	"sync"
	"time"
)

// Outcome is how one visitor fared; the times are since the start of the load.
type Outcome struct {
	Began, Ended time.Duration
	Err          error
}

// Steady opens new connections at a steady rate, however long each takes, until it is stopped.
type Steady struct {
	began time.Time
	stop  chan struct{}
	done  sync.WaitGroup

	mu       sync.Mutex
	outcomes []Outcome
}

// StartSteady starts rate visits a second. visit gets a number that no other one gets.
func StartSteady(rate int, visit func(number int) error) *Steady {
	s := &Steady{began: time.Now(), stop: make(chan struct{})}
	s.done.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for number := 0; ; {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			// A tick that was late stands for all that were due.
			for due := int(time.Since(s.began).Seconds() * float64(rate)); number < due; number++ {
				mine := number
				s.done.Go(func() { s.visit(mine, visit) })
			}
		}
	})
	return s
}

func (s *Steady) visit(number int, visit func(int) error) {
	began := time.Since(s.began)
	err := visit(number)
	ended := time.Since(s.began)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes = append(s.outcomes, Outcome{began, ended, err})
}

// Since is the time since the start.
func (s *Steady) Since() time.Duration { return time.Since(s.began) }

// Stop ends the load, waits for those that are on their way, and gives all outcomes.
func (s *Steady) Stop() []Outcome {
	close(s.stop)
	s.done.Wait()
	return s.outcomes
}
