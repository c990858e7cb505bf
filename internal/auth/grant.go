package auth

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"culvert/internal/hostname"
)

// Grant is what a bearer may do. The zero Grant permits nothing. It is not changed once it is in use.
type Grant struct {
	Hosts []hostname.Pattern // may be offered, and every pattern that one of them covers
	Ports Ports              // may be offered

	// Names and Visit are globs (path.Match) of the names of private tunnels that may be offered, and visited.
	Names, Visit []string
	// Forward are targets on the server's network: HOST:PORT, where HOST is a name, an address, a glob of names or a CIDR, IPv6
	// in brackets, and PORT is a port, a range or "*". A name is permitted as a name: no CIDR permits it, whatever it resolves to.
	Forward []string
	// Divert are globs (path.Match) of the names of entrypoints whose live traffic may be diverted; "*" is of all of them.
	Divert []string

	Read       bool // status and metrics
	Administer bool // may change what the server does
}

// Everything is the grant of all actions, as the single shared token has it.
func Everything() Grant {
	every, _ := hostname.ParsePattern("*")
	return Grant{
		Hosts: []hostname.Pattern{every}, Ports: AllPorts(), Names: []string{"*"}, Visit: []string{"*"}, Forward: []string{"*:*"},
		Divert: []string{"*"}, Read: true, Administer: true,
	}
}

// Denied is an action that a grant does not cover.
type Denied struct {
	Action  Action
	Granted string // what is granted of the kind, "ports 2222, 8000-8100"; "" where there is nothing to name
}

func (d *Denied) Error() string {
	if d.Granted == "" {
		return fmt.Sprintf("the token may not %s", d.Action)
	}
	return fmt.Sprintf("the token may not %s: it is granted %s", d.Action, d.Granted)
}

// Permit is nil if the grant covers the action, else a *Denied. It allocates nothing if the action is permitted, but for
// forwarding.
func (g Grant) Permit(a Action) error {
	if g.covers(a) {
		return nil
	}
	return &Denied{Action: a, Granted: g.granted(a.kind)}
}

func (g Grant) covers(a Action) bool {
	switch a.kind {
	case offerHost:
		for _, p := range g.Hosts {
			if p.Covers(a.host) {
				return true
			}
		}
	case offerPort:
		return g.Ports.Contains(a.port)
	case offerName:
		return anyGlob(g.Names, a.text)
	case visit:
		return anyGlob(g.Visit, a.text)
	case forwardTo:
		return anyTarget(g.Forward, a.text)
	case divert:
		return anyGlob(g.Divert, a.text) || a.text != "" && slices.Contains(g.Divert, "*") // of names with a slash, too
	case read:
		return g.Read
	case administer:
		return g.Administer
	}
	return false
}

func (g Grant) granted(k actionKind) string {
	switch k {
	case offerHost:
		return listed("hosts", patternTexts(g.Hosts))
	case offerPort:
		return listed("ports", g.Ports.list())
	case offerName:
		return listed("names", g.Names)
	case visit:
		return listed("visits to", g.Visit)
	case forwardTo:
		return listed("forwarding to", g.Forward)
	case divert:
		return listed("diverts of", g.Divert)
	default:
		return ""
	}
}

// listed is for one line of a message: a long list is cut.
func listed(what string, items []string) string {
	const most = 10
	switch n := len(items); {
	case n == 0:
		return "no " + strings.TrimSuffix(strings.TrimSuffix(what, " to"), " of")
	case n > most:
		return fmt.Sprintf("%s %s and %d more", what, strings.Join(items[:most], ", "), n-most)
	}
	return what + " " + strings.Join(items, ", ")
}

func patternTexts(patterns []hostname.Pattern) []string {
	texts := make([]string, 0, len(patterns))
	for _, p := range patterns {
		texts = append(texts, p.String())
	}
	return texts
}

// Validate finds what could never permit anything: zero hosts, malformed globs and targets. All faults are found at once.
func (g Grant) Validate() error {
	var errs []error
	for _, p := range g.Hosts {
		if p.IsZero() {
			errs = append(errs, errors.New("host is empty"))
		}
	}
	for _, glob := range slices.Concat(g.Names, g.Visit, g.Divert) {
		errs = append(errs, checkGlob(glob))
	}
	for _, target := range g.Forward {
		_, err := parseTarget(target)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func checkGlob(glob string) error {
	if _, err := path.Match(glob, ""); err != nil || glob == "" {
		return fmt.Errorf("name %q: not a name, nor a pattern with '*', '?' and '[a-z]'", glob)
	}
	return nil
}

// anyGlob takes no empty name and none with a slash, which '*' would not span.
func anyGlob(globs []string, name string) bool {
	if name == "" {
		return false
	}
	for _, glob := range globs {
		if ok, err := path.Match(glob, name); ok && err == nil {
			return true
		}
	}
	return false
}
