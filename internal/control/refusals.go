package control

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// refusals logs clients that were refused, which strangers can cause: one in ten seconds at warn; those between are counted
// and logged at debug.
type refusals struct {
	mu   sync.Mutex
	last time.Time
	more int
}

const refusalPause = 10 * time.Second

func (s *refusals) log(log *slog.Logger, remote string, err error) {
	level := slog.LevelDebug
	attrs := []any{"remote", remote, "err", err}
	if more, due := s.due(time.Now()); due {
		level = slog.LevelWarn
		if more > 0 {
			attrs = append(attrs, "others_since_the_last", more)
		}
	}
	log.Log(context.Background(), level, "client refused", attrs...)
}

func (s *refusals) due(now time.Time) (more int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && now.Sub(s.last) < refusalPause {
		s.more++
		return 0, false
	}
	more, s.more, s.last = s.more, 0, now
	return more, true
}
