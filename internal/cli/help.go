package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"culvert/internal/config"
)

// helpGroups is the order of the headings in help; others follow.
func helpGroups() []string {
	return []string{"Connection", "Data plane", "Security", "Health", "Advanced", otherGroup}
}

const (
	otherGroup = "Other"
	helpWidth  = 110 // columns
	helpIndent = 36  // columns before the text of a flag
)

// writeHelp writes the page of a command: purpose, usage, examples, commands, flags in groups with unit and default.
// It stands in for cobra's templates, which would switch the linker's dead-code elimination off.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n", strings.TrimSuffix(cmd.Short, "."))
	if cmd.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	fmt.Fprintf(&b, "\nUsage:\n  %s\n", useLine(cmd))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAlso:\n  %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	writeCommands(&b, cmd)
	writeFlags(&b, cmd)
	_, _ = io.WriteString(w, b.String())
}

func useLine(cmd *cobra.Command) string {
	switch {
	case cmd.Annotations[leafKey] != "":
		return cmd.CommandPath() + " [flags]\n  " + cmd.CommandPath() + " COMMAND"
	case cmd.HasAvailableSubCommands():
		return cmd.CommandPath() + " COMMAND"
	case cmd.HasAvailableLocalFlags():
		return cmd.CommandPath() + strings.TrimPrefix(cmd.Use, cmd.Name()) + " [flags]"
	}
	return cmd.CommandPath() + strings.TrimPrefix(cmd.Use, cmd.Name())
}

func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	b.WriteString("\nCommands:\n")
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			fmt.Fprintf(b, "  %-12s %s\n", child.Name(), child.Short)
		}
	}
	fmt.Fprintf(b, "\nFlags and examples of a command: %s COMMAND --help\n", cmd.CommandPath())
}

func writeFlags(b *strings.Builder, cmd *cobra.Command) {
	groups := map[string][]*pflag.Flag{}
	order := helpGroups()
	first := ""
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		group := otherGroup
		if g := f.Annotations[groupKey]; len(g) > 0 {
			group = g[0]
			if first == "" {
				first = f.Name
			}
		}
		if !slices.Contains(order, group) {
			order = append(order, group)
		}
		groups[group] = append(groups[group], f)
	})
	for _, group := range order {
		if len(groups[group]) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n%s:\n", group)
		for _, f := range groups[group] {
			writeFlag(b, f)
		}
	}
	if first != "" {
		fmt.Fprintf(b, "\nEvery flag has an environment variable, which the flag overrides: --%s is %s.\n",
			first, config.Variable(variablePrefix(cmd), first))
	}
}

// writeFlag writes "  -c, --control-port PORT    text (default 8123)", wrapped.
func writeFlag(b *strings.Builder, f *pflag.Flag) {
	head := "      --" + f.Name
	if f.Shorthand != "" && f.ShorthandDeprecated == "" {
		head = "  -" + f.Shorthand + ", --" + f.Name
	}
	unit := f.Value.Type()
	if f.NoOptDefVal == "" && unit != "" {
		head += " " + unit
	}
	text := f.Usage
	if f.DefValue != "" && f.DefValue != "false" {
		text += " (default " + f.DefValue + ")"
	}
	if len(head) >= helpIndent {
		b.WriteString(head + "\n")
		head = ""
	}
	for i, line := range wrap(text, helpWidth-helpIndent) {
		if i > 0 {
			head = ""
		}
		fmt.Fprintf(b, "%-*s%s\n", helpIndent, head, line)
	}
}

// wrap breaks text between words into lines of at most width bytes.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// help is "culvert help COMMAND", which refuses what is no command instead of shrugging.
func (t tree) help() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help of a command", Hidden: true,
		Example: examples("culvert help", "culvert help http server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := checkCommand(cmd.Root(), args)
			if err != nil {
				return err
			}
			return found.Help()
		},
	}
}

// completionPages gives cobra's completion commands pages like ours.
func completionPages(root *cobra.Command) {
	for _, cmd := range everyCommand(root) {
		switch path := cmd.CommandPath(); {
		case path == "culvert completion":
			cmd.Short, cmd.Long = "Shell completion: print a script for bash, zsh, fish or PowerShell", ""
			cmd.Example = examples("source <(culvert completion bash)", "culvert completion zsh --help")
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return fmt.Errorf("%s needs a shell: %s", cmd.CommandPath(), strings.Join(commandNames(cmd), ", "))
			}
		case strings.HasPrefix(path, "culvert completion "):
			cmd.Short = "Shell completion: print the script for " + cmd.Name()
			cmd.Example = examples(path, path+" --no-descriptions")
		}
	}
}
