package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"culvert/internal/config"
)

// Build says which program this is.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// ReadBuild reads the build from what the Go linker left in the program.
func ReadBuild() Build {
	b := Build{Version: "dev", Revision: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified {
		b.Revision += "-modified"
	}
	return b
}

// version prints the build.
func (t tree) version() *cobra.Command {
	cfg := new(noSettings)
	return t.command(leaf{
		use: "version", short: "Version: of this program, its source and the Go that built it",
		examples: []string{"culvert version", "culvert version --output json"},
		settings: config.Describe(cfg, ""), cfg: cfg,
		run: func(context.Context, *slog.Logger, []string) error {
			if cfg.JSON() {
				return writeJSON(t.deps.Stdout, t.deps.Build)
			}
			return printVersion(t.deps.Stdout, t.deps.Build)
		},
	})
}

func printVersion(w io.Writer, b Build) error {
	_, err := fmt.Fprintf(w, "culvert %s\nrevision %s\n%s %s\n", b.Version, b.Revision, b.Go, b.Platform)
	return err
}

// noSettings is the configuration of a command that has none but the form of its output.
type noSettings struct{ config.Output }

// Resolve has nothing to find wrong.
func (*noSettings) Resolve(config.Environment) error { return nil }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
