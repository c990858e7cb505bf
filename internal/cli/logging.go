package cli

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/lmittmann/tint"

	"culvert/internal/config"
)

// subsystemKey is the attribute by which a subsystem's logger says whose it is: log.With("subsystem", "mux").
const subsystemKey = "subsystem"

// newLogger is the log of a command. On a terminal it is in colours.
func newLogger(w io.Writer, cfg config.Log, terminal bool) *slog.Logger {
	var inner slog.Handler
	least := cfg.LogLevel.Least()
	switch {
	case cfg.LogFormat == "json":
		inner = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: least})
	case terminal:
		inner = tint.NewTextHandler(w, &tint.Options{Level: least, TimeFormat: time.TimeOnly})
	default:
		inner = slog.NewTextHandler(w, &slog.HandlerOptions{Level: least})
	}
	return slog.New(leveled{inner, cfg.LogLevel.For(""), cfg.LogLevel})
}

// leveled passes on what is at or above the level of the subsystem that the logger belongs to.
type leveled struct {
	slog.Handler
	level  slog.Level
	levels config.LogLevel
}

func (h leveled) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == subsystemKey {
			h.level = h.levels.For(a.Value.String())
		}
	}
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

func (h leveled) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}
