package proxy

import (
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"culvert/internal/epoll"
	"culvert/internal/upstream"
)

func (s *sleepers) waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoll != nil
}

// TestNobodySleepsNobodyWaits has the epoll, and with it the goroutine, go when the last sleeper does.
func TestNobodySleepsNobodyWaits(t *testing.T) {
	slept := make(chan struct{}, 100)
	var c Carrier
	for range 2 { // opened anew
		visitor, a := pair(t)
		b, service := pair(t)
		done := between(t.Context(), &c, drowsy{upstream.FromTCP(a), slept}, drowsy{upstream.FromTCP(b), slept}, nil)
		<-slept
		<-slept
		for !c.hands.sleepers.waits() { // each is about to
			runtime.Gosched()
		}
		visitor.Close()
		service.Close()
		<-done
		if c.hands.sleepers.waits() {
			t.Error("somebody waits for nobody")
		}
	}
}

// TestWhoCannotSleepWakesUp has the kernel not take a sleeper.
func TestWhoCannotSleepWakesUp(t *testing.T) {
	visitor, a := pair(t)
	b, service := pair(t)
	slept := make(chan struct{}, 100)
	broken, err := epoll.New()
	if err != nil {
		t.Fatal(err)
	}
	_ = broken.Close()
	var c Carrier
	c.hands.sleepers = sleepers{asleep: map[uint64]*direction{}, epoll: broken}
	done := between(t.Context(), &c, drowsy{upstream.FromTCP(a), slept}, pumped{upstream.FromTCP(b)}, nil)
	<-slept
	say(t, visitor, "hello")
	got := make([]byte, 5)
	if _, err := io.ReadFull(service, got); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v, want hello", got, err)
	}
	visitor.Close()
	service.Close()
	<-done
}

// TestAWordAtTheMomentOfSleepIsHeard has many visitors say something just when nobody waits for them any more.
func TestAWordAtTheMomentOfSleepIsHeard(t *testing.T) {
	var c Carrier
	var visitors sync.WaitGroup
	for range 100 {
		visitor, a := pair(t)
		b, service := pair(t)
		slept := make(chan struct{}, 100)
		done := between(t.Context(), &c, drowsy{upstream.FromTCP(a), slept}, upstream.FromTCP(b), nil)
		go func() {
			defer service.Close()
			echo(service)
		}()
		visitors.Go(func() {
			got := make([]byte, 5)
			_ = visitor.SetReadDeadline(time.Now().Add(30 * time.Second))
			for range 5 {
				<-slept
				_, _ = io.WriteString(visitor, "hello")
				if _, err := io.ReadFull(visitor, got); err != nil {
					t.Errorf("after a word: %v", err)
				}
			}
			<-slept
			visitor.Close()
			<-done
		})
	}
	visitors.Wait()
	if c.hands.sleepers.waits() {
		t.Error("somebody waits for nobody")
	}
}
