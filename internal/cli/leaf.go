package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"culvert/internal/config"
)

// leaf describes a command that does something.
type leaf struct {
	use, short string
	examples   []string
	settings   *config.Settings
	cfg        config.Resolver
	log        *config.Log // nil for a command without log flags
	args       cobra.PositionalArgs
	complete   cobra.CompletionFunc // of arguments; nil for a command that has none
	run        func(ctx context.Context, log *slog.Logger, args []string) error
}

// page is what help says of a command that exists in several shapes.
type page struct {
	mode     config.Mode
	words    []string // the command's path below the root
	short    string
	examples []string
}

// command makes the cobra command of a leaf. Its run function sees a configuration that is complete and right.
func (t tree) command(l leaf) *cobra.Command {
	cmd := &cobra.Command{Use: l.use, Short: l.short, Example: examples(l.examples...), Args: l.args, ValidArgsFunction: cobra.NoFileCompletions}
	if cmd.Args == nil {
		cmd.Args = noArguments
	}
	if l.complete != nil {
		cmd.ValidArgsFunction = l.complete
	}
	// cobra prints deprecation lines to a command's output if it has one; ours goes to deps.Stdout directly.
	cmd.SetOut(t.deps.Stderr)
	bind(cmd, l.settings)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := config.Load(l.cfg, l.settings, variablePrefix(cmd), t.deps.Environment); err != nil {
			return err
		}
		var logging config.Log
		if l.log != nil {
			logging = *l.log
		}
		log := newLogger(t.deps.Stderr, logging, t.deps.Terminal)
		warnVisible(log, l.settings)
		err := l.run(cmd.Context(), log, args)
		var wrong usage
		if err == nil || errors.As(err, &wrong) {
			return err
		}
		return failure{err}
	}
	return cmd
}

// group makes a command that only has commands.
func (t tree) group(use, short string, children ...*cobra.Command) *cobra.Command {
	var lines []string
	for _, child := range children {
		first, _, _ := strings.Cut(child.Example, "\n")
		lines = append(lines, strings.TrimSpace(first))
	}
	if len(children) == 1 {
		lines = nil
		for line := range strings.Lines(children[0].Example) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	lines = lines[:min(len(lines), 3)]
	cmd := &cobra.Command{
		Use: use, Short: short, Example: examples(lines...), Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s needs a command: %s", cmd.CommandPath(), strings.Join(commandNames(cmd), ", "))
		},
	}
	cmd.AddCommand(children...)
	return cmd
}

// flagValue lets pflag fill a setting. It never fails: config tells everything that is wrong at once.
type flagValue struct{ setting *config.Setting }

func (v flagValue) Set(raw string) error { v.setting.Set(raw); return nil }
func (v flagValue) Type() string         { return v.setting.Unit }
func (v flagValue) String() string       { return v.setting.Default }

// groupKey is the annotation of a flag that says under which heading help shows it.
const groupKey = "culvert/group"

// leafKey is the annotation of a command that does something and has commands below it, too.
const leafKey = "culvert/leaf"

// bind makes the flags of settings: their own, and the hidden ones that users of other tunnels type. Letters of other
// tunnels give way to our own.
func bind(cmd *cobra.Command, settings *config.Settings) {
	flags := cmd.Flags()
	flags.SortFlags = false
	own := map[string]bool{"h": true}
	for _, s := range settings.All() {
		own[s.Short] = true
	}
	for _, s := range settings.All() {
		short, foreign := s.Short, ""
		if short == "" && !own[s.OldShort] {
			short, foreign = s.OldShort, s.OldShort
		}
		f := addFlag(flags, s, s.Flag, short)
		f.Annotations = map[string][]string{groupKey: {s.Group}}
		if s.Shown != "" {
			f.DefValue = s.Shown
		}
		if foreign != "" {
			f.ShorthandDeprecated = "use --" + s.Flag
		}
		if s.Alias != "" {
			addFlag(flags, s, s.Alias, "").Hidden = true
		}
		if s.Old != "" {
			old := addFlag(flags, s, s.Old, "")
			old.Hidden, old.Deprecated = true, "use --"+s.Flag
		}
		complete(cmd, s)
	}
}

func addFlag(flags *pflag.FlagSet, s *config.Setting, name, short string) *pflag.Flag {
	f := flags.VarPF(flagValue{s}, name, short, s.Help)
	if s.Bool() {
		f.NoOptDefVal = "true"
	}
	return f
}

// complete tells the shell what may follow a flag: its values, a file, a folder or nothing that it could know.
func complete(cmd *cobra.Command, s *config.Setting) {
	complete := cobra.NoFileCompletions
	switch {
	case len(s.Values) > 0:
		complete = cobra.FixedCompletions(s.Values, cobra.ShellCompDirectiveNoFileComp)
	case s.Unit == "FILE":
		return
	case s.Unit == "FOLDER":
		complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	}
	if err := cmd.RegisterFlagCompletionFunc(s.Flag, complete); err != nil {
		panic(err) // a flag that was added just now
	}
}

// variablePrefix is what the environment variables of a command's flags begin with: CULVERT_HTTP_SERVER.
func variablePrefix(cmd *cobra.Command) string {
	return strings.ToUpper(strings.NewReplacer(" ", "_", "-", "_").Replace(cmd.CommandPath()))
}

// warnVisible warns of secrets that other users of the machine can read from the process list.
func warnVisible(log *slog.Logger, settings *config.Settings) {
	for _, s := range settings.All() {
		if s.Secret() && s.Source() == config.FromFlag {
			log.Warn("the secret is visible in the process list", "flag", "--"+s.Flag, "remedy", "--"+s.Flag+"-file")
		}
	}
}

// noArguments refuses arguments that belong to no flag.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if args[0] == "true" || args[0] == "false" {
		return fmt.Errorf("unexpected %q: write a switch with '=', as in --auto-tls=%s", args[0], args[0])
	}
	if end := strings.ToLower(filepath.Ext(args[0])); cmd.Flags().Lookup("config") != nil && (end == ".yaml" || end == ".yml" || end == ".json") {
		return fmt.Errorf("unexpected argument %q: give --config %s", args[0], args[0])
	}
	return fmt.Errorf("unexpected argument %q: %s takes flags only", args[0], cmd.CommandPath())
}

func examples(lines ...string) string {
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("  " + line)
	}
	return b.String()
}
