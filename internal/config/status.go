package config

import (
	"net/url"
	"time"
)

// Output is the form of what a command prints.
type Output struct {
	Output string `flag:"output" short:"o" default:"text" values:"text json" unit:"FORMAT" group:"Advanced" help:"form of what is printed: text or json"`
}

// JSON says whether the output is for programs.
func (o Output) JSON() bool { return o.Output == "json" }

// Control is how a command asks a server something over its control port.
type Control struct {
	// ServerURL is the server as typed.
	ServerURL string `flag:"url" oldshort:"r" unit:"URL" group:"Connection" help:"server: wss://HOST[:PORT] or tls://HOST[:PORT], port 443 if left out"`
	ServerTrust
	Credential
	InsecureNoAuth bool          `flag:"insecure-no-auth" group:"Security" help:"ask without a token, a server that wants none"`
	Timeout        time.Duration `flag:"timeout" default:"10s" unit:"DURATION" group:"Advanced" help:"how long to wait for the answer"`

	// URL is the server: scheme, host:port and path, all present. Resolve makes it of ServerURL.
	URL *url.URL
}

// Resolve reads the token and the URL, checks the files that are named and then everything else. The error is Problems.
func (s *Control) Resolve(env Environment) error { return s.resolve(env).Err() }

func (s *Control) resolve(env Environment) (found Problems) {
	s.URL, found = reach(s.ServerURL, &s.ServerTrust, &s.Credential, s.InsecureNoAuth, env)
	if s.Timeout <= 0 {
		found.add("timeout", "", "leaves no time for an answer")
	}
	return found
}

// Question is the configuration of a command that asks a server for something to print.
type Question struct {
	Control
	Output
	Log
}

// Status is the configuration of the status command.
type Status struct {
	Control
	Watch    bool          `flag:"watch" group:"Advanced" help:"print it again and again until Ctrl-C; with --output json, an object on a line each time"`
	Interval time.Duration `flag:"interval" default:"2s" unit:"DURATION" group:"Advanced" help:"time between two of them, with --watch"`
	Output
	Log
}

// leastInterval keeps a watch from being a load.
const leastInterval = 100 * time.Millisecond

// Resolve does what that of Control does, and checks the interval. The error is Problems.
func (s *Status) Resolve(env Environment) error {
	found := s.resolve(env)
	if s.Interval < leastInterval {
		found.add("interval", "", "%s is too short; give %s or more", s.Interval, leastInterval)
	}
	return found.Err()
}

// Order is the configuration of a command that has a server do something.
type Order struct {
	Control
	Log
}

// MemberDrain is the configuration of the command that drains a member, which it takes as an argument.
type MemberDrain struct {
	Control
	Wait  time.Duration `flag:"wait" unit:"DURATION" shown:"not at all" group:"Advanced" help:"wait until its open connections have ended, at most so long; some that are left are a failure"`
	Close bool          `flag:"close" group:"Advanced" help:"reset its open connections of TCP and TLS, after --wait those that are left; flows of UDP and requests of HTTP go on"`
	Log
}

// Explain is the configuration of the explain command, whose argument is the beginning of a connection's id.
type Explain struct {
	Control
	Source     string `flag:"source" unit:"ADDRESS" group:"Connection" help:"connections of this visitor: an address or a CIDR"`
	Entrypoint string `flag:"entrypoint" unit:"NAME" group:"Connection" help:"connections of this entrypoint"`
	Last       int    `flag:"last" default:"20" unit:"N" group:"Connection" help:"at most so many, the newest"`
	Output
	Log
}

// Resolve does what that of Control does, and checks what is asked for. The error is Problems.
func (e *Explain) Resolve(env Environment) error {
	found := e.resolve(env)
	if e.Source != "" {
		if _, err := parsePrefix(e.Source); err != nil {
			found.add("source", "", "%s", err)
		}
	}
	if e.Last < 1 || e.Last > 10_000 {
		found.add("last", "", "%d connections; give 1 to 10000", e.Last)
	}
	return found.Err()
}
