package control

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// seldom logs at warn what strangers can cause, one event in ten seconds; those between are counted and logged at debug.
type seldom struct {
	mu   sync.Mutex
	last time.Time
	more int
}

const seldomPause = 10 * time.Second

func (s *seldom) log(log *slog.Logger, msg string, args ...any) {
	level := slog.LevelDebug
	if more, due := s.due(time.Now()); due {
		level = slog.LevelWarn
		if more > 0 {
			args = append(args, "others_since_the_last", more)
		}
	}
	log.Log(context.Background(), level, msg, args...)
}

func (s *seldom) due(now time.Time) (more int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && now.Sub(s.last) < seldomPause {
		s.more++
		return 0, false
	}
	more, s.more, s.last = s.more, 0, now
	return more, true
}
