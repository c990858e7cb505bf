package cli

import (
	"bytes"
	"strings"
	"testing"

	"culvert/internal/config"
)

func TestLogLevelsOfSubsystems(t *testing.T) {
	cfg := logConfig(t, "mux=debug,control=error,warn")
	var b bytes.Buffer
	log := newLogger(&b, cfg, false)
	log.Info("hidden")
	log.Warn("shown 1")
	mux := log.With("subsystem", "mux")
	mux.Debug("shown 2")
	mux.With("link", 1).WithGroup("g").Debug("shown 3")
	control := log.With("subsystem", "control")
	control.Warn("hidden")
	control.Error("shown 4")
	log.With("other", "mux").Debug("hidden")
	if got := b.String(); strings.Count(got, "shown") != 4 || strings.Contains(got, "hidden") {
		t.Errorf("log:\n%s", got)
	}
}

func TestLogForms(t *testing.T) {
	cfg := logConfig(t, "info")
	for _, test := range []struct {
		format   string
		terminal bool
		want     string
	}{
		{"json", true, `"msg":"hello","port":8123}`},
		{"text", false, "msg=hello port=8123"},
		{"text", true, "hello \x1b[2mport=\x1b[0m8123"},
	} {
		var b bytes.Buffer
		cfg.LogFormat = test.format
		newLogger(&b, cfg, test.terminal).Info("hello", "port", 8123)
		if !strings.Contains(b.String(), test.want) {
			t.Errorf("%s, terminal %v: %q", test.format, test.terminal, &b)
		}
	}
}

func logConfig(t *testing.T, level string) config.Log {
	t.Helper()
	var cfg config.Log
	settings := config.Describe(&cfg, "")
	settings.Lookup("log-level").Set(level)
	if err := settings.Check(nil); err != nil {
		t.Fatal(err)
	}
	return cfg
}
