package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"culvert/internal/config"
	"culvert/internal/config/file"
)

// check validates configuration files and changes nothing.
func (t tree) check() *cobra.Command {
	cfg := new(config.Check)
	return t.command(leaf{
		use: "check FILE...", short: "Check a configuration file: tells all that is wrong with it, where, and what to write instead",
		examples: []string{
			"culvert check culvert.yaml",
			"culvert check culvert.yaml --files=false --output json",
			"culvert check --schema > culvert.schema.json",
		},
		settings: config.Describe(cfg, ""), cfg: cfg,
		args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !cfg.Schema {
				return fmt.Errorf("%s needs a file: %s culvert.yaml", cmd.CommandPath(), cmd.CommandPath())
			}
			if len(args) > 0 && cfg.Schema {
				return fmt.Errorf("--schema prints the schema of any file; leave %s out, or --schema", args[0])
			}
			return nil
		},
		complete: cobra.FixedCompletions([]string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt),
		run: func(_ context.Context, _ *slog.Logger, paths []string) error {
			if cfg.Schema {
				return t.printSchema()
			}
			return t.checkFiles(paths, cfg)
		},
	})
}

func (t tree) printSchema() error {
	b, err := json.MarshalIndent(config.Schema(), "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.deps.Stdout, "%s\n", b)
	return err
}

// finding is what is said of a file, for programs.
type finding struct {
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Severity string `json:"severity"` // "error" or "warning"
	Path     string `json:"path,omitempty"`
	Message  string `json:"message"`
	Remedy   string `json:"remedy,omitempty"`
}

func asFinding(f file.Fault, severity string) finding {
	return finding{f.File, f.Line, f.Column, severity, f.Path, f.Fault, f.Remedy}
}

// checkFiles writes what it finds to standard error, each on a line that editors understand, or all of it as JSON to
// standard output.
func (t tree) checkFiles(paths []string, cfg *config.Check) error {
	findings, wrong := []finding{}, 0
	for _, path := range paths {
		checked, err := config.CheckFile(path, !cfg.Files, t.deps.Environment)
		var problems config.Problems
		if err != nil && !errors.As(err, &problems) {
			return err
		}
		wrong += len(problems)
		for _, p := range problems {
			f := p.Place()
			if f.File == "" { // what is missing stands nowhere
				f.File, f.Position, f.Path = path, file.Position{Line: 1, Column: 1}, strings.ReplaceAll(p.Flag, "-", "_")
			}
			findings = append(findings, asFinding(f, "error"))
			t.told(cfg, f.Error())
		}
		for _, w := range checked.Warnings {
			findings = append(findings, asFinding(w, "warning"))
			w.Fault = "warning: " + w.Fault
			t.told(cfg, w.Error())
		}
		if !cfg.JSON() {
			t.summary(path, len(problems), checked)
		}
	}
	if cfg.JSON() {
		if err := writeJSON(t.deps.Stdout, findings); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return usage{errTold}
	}
	return nil
}

func (t tree) told(cfg *config.Check, line string) {
	if !cfg.JSON() {
		fmt.Fprintln(t.deps.Stderr, line)
	}
}

func (t tree) summary(path string, problems int, checked config.Server) {
	if problems > 0 {
		fmt.Fprintf(t.deps.Stderr, "%s: %s\n", path, count(problems, "fault"))
		return
	}
	routes, members := 0, 0
	for _, e := range checked.Plan.Entrypoints {
		routes += len(e.Routes)
	}
	for _, u := range checked.Plan.Upstreams {
		members += len(u.Members)
	}
	fmt.Fprintf(t.deps.Stdout, "%s is right: %s, %s, %s, %s\n", path, count(len(checked.Plan.Entrypoints), "entrypoint"),
		count(routes, "route"), count(len(checked.Plan.Upstreams), "upstream"), count(members, "member"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
