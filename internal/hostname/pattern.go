package hostname

import (
	"errors"
	"strings"
)

// Pattern is a set of hosts: one host ("app.example.com"), all hosts below a domain ("*.dev.example.com") or every host
// ("*"). A wildcard stands for one or more labels, so it never matches the bare domain. The zero Pattern is of no host.
//
// A Pattern is comparable: two are equal when they are of the same hosts.
type Pattern struct {
	text string // "", "*", "*.dev.example.com" or a canonical host
}

// ParsePattern reads a pattern as people and peers write it, and makes its host canonical. It takes no port, and a '*' only
// as the whole first label, before a name that is not an IP address.
func ParsePattern(s string) (Pattern, error) {
	if s == "*" {
		return Pattern{s}, nil
	}
	rest, wild := strings.CutPrefix(s, "*.")
	name, port, err := canonical(rest)
	switch {
	case err != nil && wild && rest == "":
		return Pattern{}, refused(s, errLabelEmpty)
	case err != nil:
		return Pattern{}, refused(s, err)
	case port:
		return Pattern{}, refused(s, errPattern)
	case !wild:
		return Pattern{name}, nil
	case numeric(name):
		return Pattern{}, refused(s, errors.New("an address has no names below it"))
	case len("*.")+len(name) > maxHost:
		return Pattern{}, refused(s, errLong)
	}
	return Pattern{"*." + name}, nil
}

// numeric says whether a canonical host is an IP address: literal() has seen to it that only those end in a number.
func numeric(host string) bool {
	return strings.Contains(host, ":") || number(host[strings.LastIndexByte(host, '.')+1:])
}

// String is the pattern as ParsePattern reads it; "" for the zero Pattern.
func (p Pattern) String() string { return p.text }

// IsZero says whether the pattern is the zero one, which is of no host.
func (p Pattern) IsZero() bool { return p.text == "" }

// Match says whether a host is of the pattern. The host must be in canonical form. It allocates nothing.
func (p Pattern) Match(canonicalHost string) bool {
	switch {
	case p.text == "" || canonicalHost == "":
		return false
	case p.text[0] != '*':
		return p.text == canonicalHost
	}
	suffix := p.text[1:] // "" or ".dev.example.com"
	return len(canonicalHost) > len(suffix) && strings.HasSuffix(canonicalHost, suffix)
}

// Covers says whether every host of q is a host of p, and q has any: whoever is granted p may offer q.
func (p Pattern) Covers(q Pattern) bool {
	switch {
	case p.text == "" || q.text == "":
		return false
	case p == q, p.text == "*":
		return true
	case p.text[0] != '*' || q.text == "*":
		return false
	}
	// "*.b.c" covers "a.b.c" and "*.a.b.c": in both, more stands before ".b.c".
	return len(q.text) > len(p.text[1:]) && strings.HasSuffix(q.text, p.text[1:])
}
