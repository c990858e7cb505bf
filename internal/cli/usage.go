package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"culvert/internal/nearest"
)

// checkCommand finds the command that args name, and refuses unknown ones and long flags with a single dash before any
// flag is parsed: pflag would read -url as -u with the value "rl".
func checkCommand(root *cobra.Command, args []string) (*cobra.Command, error) {
	cmd, rest, err := root.Find(args)
	if err != nil {
		return root, err
	}
	if cmd.HasSubCommands() && cmd.Annotations[leafKey] == "" { // one with flags of its own sees to its arguments itself
		for _, arg := range rest {
			if !strings.HasPrefix(arg, "-") {
				return cmd, unknownCommand(cmd, arg)
			}
		}
	}
	for _, arg := range rest {
		if arg == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--") && len(name) > 1 && cmd.Flags().Lookup(name) != nil {
			return cmd, fmt.Errorf("unknown flag -%s: write --%s", name, name)
		}
	}
	return cmd, nil
}

func unknownCommand(parent *cobra.Command, name string) error {
	if message, ok := foreignCommand(name); ok && parent.Parent() == nil {
		return fmt.Errorf("unknown command %q: %s", name, message)
	}
	if parent.Name() == "udp" && name == "server" {
		return fmt.Errorf("unknown command %q for %s: use culvert server or culvert tcp server, which carry UDP too", name, parent.CommandPath())
	}
	names := commandNames(parent)
	if best := nearest.Name(name, names); best != "" {
		return fmt.Errorf("unknown command %q for %s; did you mean %s?", name, parent.CommandPath(), best)
	}
	for _, cmd := range everyCommand(parent.Root()) {
		if cmd.Name() == name && cmd.Parent().Parent() != nil {
			return fmt.Errorf("unknown command %q for %s; did you mean %s?", name, parent.CommandPath(), cmd.CommandPath())
		}
	}
	return fmt.Errorf("unknown command %q for %s; there are %s", name, parent.CommandPath(), strings.Join(names, ", "))
}

func commandNames(parent *cobra.Command) []string {
	var names []string
	for _, cmd := range parent.Commands() {
		if cmd.IsAvailableCommand() || cmd.Name() == "help" {
			names = append(names, cmd.Name())
		}
	}
	return names
}

// everyCommand is the tree below root, root left out, parents first.
func everyCommand(root *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, cmd := range root.Commands() {
		all = append(all, cmd)
		all = append(all, everyCommand(cmd)...)
	}
	return all
}

// flagError turns pflag's errors into ours. None quotes a value: it may be a secret.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		syntax  *pflag.InvalidSyntaxError
	)
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(cmd, unknown)
	case errors.As(err, &missing):
		f := missing.GetFlag()
		return fmt.Errorf("--%s needs a value: --%s %s", f.Name, f.Name, f.Value.Type())
	case errors.As(err, &syntax):
		return errors.New("a flag has no name: write --NAME VALUE or --NAME=VALUE")
	}
	return err
}

func unknownFlag(cmd *cobra.Command, err *pflag.NotExistError) error {
	name := err.GetSpecifiedName()
	if letters := err.GetSpecifiedShortnames(); letters != "" {
		// pflag names the one letter that it does not know, out of the letters behind the dash.
		return fmt.Errorf("unknown flag -%s for %s", name, cmd.CommandPath())
	}
	if message, ok := foreignFlag(cmd, name); ok {
		return fmt.Errorf("--%s: %s", name, message)
	}
	if others := commandsWith(cmd, name); len(others) > 0 {
		return fmt.Errorf("unknown flag --%s for %s: it belongs to %s", name, cmd.CommandPath(), strings.Join(others, ", "))
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if best := nearest.Name(name, names); best != "" {
		return fmt.Errorf("unknown flag --%s for %s; did you mean --%s?", name, cmd.CommandPath(), best)
	}
	return fmt.Errorf("unknown flag --%s for %s", name, cmd.CommandPath())
}

// commandsWith are the commands beside cmd that have a flag; all of them if cmd is one that only has commands.
func commandsWith(cmd *cobra.Command, flag string) []string {
	var paths []string
	for _, other := range everyCommand(cmd.Root()) {
		f := other.LocalFlags().Lookup(flag)
		if other != cmd && other.IsAvailableCommand() && f != nil && !f.Hidden && flag != "help" {
			paths = append(paths, other.CommandPath())
		}
	}
	const most = 4
	if len(paths) > most {
		paths = append(slices.Clip(paths[:most]), "others")
	}
	return paths
}
