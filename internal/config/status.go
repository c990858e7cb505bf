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

// Status is the configuration of the status command.
type Status struct {
	// ServerURL is the server as typed.
	ServerURL string `flag:"url" oldshort:"r" unit:"URL" group:"Connection" help:"server: wss://HOST[:PORT] or tls://HOST[:PORT], port 443 if left out"`
	ServerTrust
	Credential
	InsecureNoAuth bool          `flag:"insecure-no-auth" group:"Security" help:"ask without a token, a server that wants none"`
	Timeout        time.Duration `flag:"timeout" default:"10s" unit:"DURATION" group:"Advanced" help:"how long to wait for the answer"`
	Output
	Log

	// URL is the server: scheme, host:port and path, all present. Resolve makes it of ServerURL.
	URL *url.URL
}

// Resolve reads the token and the URL, checks the files that are named and then everything else. The error is Problems.
func (s *Status) Resolve(env Environment) error {
	var found Problems
	if s.ServerURL == "" {
		found.add("url", "give --url wss://HOST:8123", "the address of a server is missing")
	} else if u, err := parseURL(s.ServerURL, s.InsecurePlaintext); err != nil {
		found = append(found, *err)
	} else {
		s.URL = u
	}
	found = append(found, s.Credential.resolve(env)...)
	found = append(found, needToken(&s.Credential, s.InsecureNoAuth)...)
	found = append(found, s.ServerTrust.validate(&s.Credential, s.InsecureNoAuth, s.URL != nil && s.URL.Scheme != "ws")...)
	if s.TLSCA != "" {
		if err := checkCA(s.TLSCA); err != nil {
			found.add("tls-ca", "", "%s", err)
		}
	}
	if s.Timeout <= 0 {
		found.add("timeout", "", "leaves no time for an answer")
	}
	return found.Err()
}
