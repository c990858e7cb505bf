package upstream

import (
	"sync"
	"sync/atomic"
)

// teller calls what others want to hear, one after the other and in order, by whichever goroutine is there.
type teller struct {
	usable atomic.Bool // what was told last

	mu      sync.Mutex
	news    []func()
	telling bool
}

func (t *teller) add(what func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.news = append(t.news, what)
}

// tell tells all there is, unless somebody else is at it, who then tells this too. No lock is held meanwhile.
func (t *teller) tell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.telling {
		return
	}
	t.telling = true
	defer func() { t.telling = false }()
	for len(t.news) > 0 {
		what := t.news[0]
		t.news = t.news[1:]
		t.mu.Unlock()
		what()
		t.mu.Lock()
	}
}
