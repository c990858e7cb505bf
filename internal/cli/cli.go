// Package cli is the command line: one file for each command, which turns flags and environment into a configuration and
// hands it to what Deps says.
//
// No command opens anything before its configuration is known to be right: what is wrong is told on standard error, all at
// once, with exit code 2. Exit codes are 0 for success, 1 for a failure at run time, 2 for a usage or configuration error,
// 130 and 143 for an interruption. Help, errors and deprecation lines never show a secret.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"culvert/internal/client"
	"culvert/internal/config"
)

// Deps is what the commands need of the world. All fields are required.
type Deps struct {
	Build          Build
	Stdout, Stderr io.Writer
	// Terminal says whether standard error is a terminal that shows colours.
	Terminal    bool
	Environment config.Environment
	// Dir is the working directory, to which relative paths in a generated unit are.
	Dir string
	Now func() time.Time

	RunServer     func(ctx context.Context, cfg config.Server, log *slog.Logger) error
	RunClient     func(ctx context.Context, cfg config.Client, log *slog.Logger) error
	RunFileserver func(ctx context.Context, cfg config.Fileserver, log *slog.Logger) error
	// RunDivert tells event what happens, in turn, and returns when the divert has ended.
	RunDivert func(ctx context.Context, cfg config.Divert, event func(client.DivertEvent), log *slog.Logger) error
	// RunDemo writes its summary to out.
	RunDemo func(ctx context.Context, cfg config.Demo, out io.Writer, log *slog.Logger) error
}

// Exit codes.
const (
	exitOK         = 0
	exitFailure    = 1
	exitUsage      = 2
	exitInterrupt  = 130 // 128 + SIGINT
	exitTerminated = 143 // 128 + SIGTERM
)

// NewRoot is the whole command tree.
func NewRoot(deps Deps) *cobra.Command {
	root := &cobra.Command{
		Use:           "culvert",
		Short:         "Reverse tunnels and load balancing: private HTTP, TCP and UDP services in public, encrypted and highly available",
		Example:       examples("culvert demo", "culvert http server --token-file token", "culvert http client --url wss://203.0.113.7:8123 --token-file token --upstream http://127.0.0.1:3000"),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // unknown commands are refused by checkCommand, with the nearest right one
	}
	version := root.Flags().Bool("version", false, "print the version and exit")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if *version {
			return printVersion(deps.Stdout, deps.Build)
		}
		return cmd.Help()
	}
	root.SetOut(deps.Stdout)
	root.SetErr(deps.Stderr)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(deps.Stdout, cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { writeHelp(deps.Stderr, cmd); return nil })
	root.SetFlagErrorFunc(flagError)
	t := tree{deps}
	root.AddCommand(
		t.demo(),
		t.server(serverPage()), t.client(clientPage()),
		t.group("http", "HTTP tunnels: a server, a client and a file server for HTTP alone",
			t.server(httpServerPage()), t.client(httpClientPage()), t.fileserver("http", "fileserver")),
		t.group("tcp", "TCP tunnels: a server and a client for TCP alone",
			t.server(tcpServerPage()), t.client(tcpClientPage())),
		t.group("udp", "UDP tunnels: a client for UDP alone; the server is culvert tcp server or culvert server",
			t.client(udpClientPage())),
		t.server(lbPage()),
		t.check(),
		t.fileserver("fileserver"),
		t.divert(),
		t.group("member", "Members: drain one of a running server's, take it back, give it another weight, list them",
			t.memberDrain(), t.memberReady(), t.memberWeight(), t.memberList()),
		t.status(), t.explain(), t.reload(), t.drain(),
		t.group("token", "Tokens: make, list and revoke the tokens of a token file",
			t.tokenNew(), t.tokenList(), t.tokenRevoke()),
		t.version(),
	)
	root.SetHelpCommand(t.help())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	completionPages(root)
	return root
}

// tree makes commands of what they depend on.
type tree struct{ deps Deps }

// failure is an error of a command's work, as opposed to one of its usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// usage is an error of usage that only the command itself could find.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// errTold is an error that the command has told by itself.
var errTold = errors.New("told already")

// asksForCompletion says whether the shell asks, by a command that cobra adds when it runs, what may follow.
func asksForCompletion(args []string) bool {
	return len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd)
}

// answerOnStdout has completions go where the shell reads them: cobra writes them to the output of the command in question.
func answerOnStdout(root *cobra.Command, stdout io.Writer) {
	for _, cmd := range everyCommand(root) {
		cmd.SetOut(stdout)
	}
}

// Execute runs the command that args name and returns the exit code. Errors are written to deps.Stderr.
// A context that ended is the caller's to tell: Execute returns 1 for context.Canceled like for any failure.
func Execute(ctx context.Context, deps Deps, args []string) int {
	root := NewRoot(deps)
	root.SetArgs(args)
	cmd, err := root, error(nil)
	if asksForCompletion(args) { // what is typed so far need not be right
		answerOnStdout(root, deps.Stdout)
	} else {
		cmd, err = checkCommand(root, args)
	}
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errTold) {
		return exitUsage
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(deps.Stderr, "culvert: %s\n", line)
	}
	var f failure
	if errors.As(err, &f) {
		return exitFailure
	}
	fmt.Fprintf(deps.Stderr, "See: %s --help\n", cmd.CommandPath())
	return exitUsage
}
