package config

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// Log is how a command writes its log, to standard error.
type Log struct {
	LogFormat string   `flag:"log-format" default:"text" values:"text json" unit:"FORMAT" group:"Advanced" help:"form of the log on standard error: text or json"`
	LogLevel  LogLevel `flag:"log-level" default:"info" unit:"LEVELS" group:"Advanced" help:"least level logged: debug, info, warn or error; for one subsystem as in mux=debug,info"`
}

// LogLevel is the least level that is logged, in all and for each subsystem. The zero LogLevel is info for all.
type LogLevel struct {
	all       slog.Level
	subsystem map[string]slog.Level
}

// Warnings is the level of a command that prints by other means what is no fault.
func Warnings() LogLevel { return LogLevel{all: slog.LevelWarn} }

// For is the level of a subsystem; "" is of what belongs to none.
func (l LogLevel) For(subsystem string) slog.Level {
	if level, ok := l.subsystem[subsystem]; ok {
		return level
	}
	return l.all
}

// Least is the lowest level of all subsystems.
func (l LogLevel) Least() slog.Level {
	least := l.all
	for _, level := range l.subsystem {
		least = min(least, level)
	}
	return least
}

// String is the levels as typed: "control=debug,mux=warn,info".
func (l LogLevel) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(l.subsystem)) {
		parts = append(parts, name+"="+strings.ToLower(l.subsystem[name].String()))
	}
	return strings.Join(append(parts, strings.ToLower(l.all.String())), ",")
}

func (l *LogLevel) parse(raw string) error {
	levels := LogLevel{subsystem: map[string]slog.Level{}}
	general := false
	for item := range strings.SplitSeq(raw, ",") {
		name, level, scoped := strings.Cut(strings.TrimSpace(item), "=")
		if !scoped {
			name, level = "", name
		}
		v, ok := levelNames(level)
		if !ok || scoped && !word(name) || !scoped && general {
			return fmt.Errorf("%q is not a level; use debug, info, warn or error, or as in mux=debug,info", shorten(item))
		}
		if scoped {
			levels.subsystem[name] = v
		} else {
			levels.all, general = v, true
		}
	}
	*l = levels
	return nil
}

func levelNames(s string) (slog.Level, bool) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "warn", "warning":
		return slog.LevelWarn, true
	case "error":
		return slog.LevelError, true
	}
	return 0, false
}
