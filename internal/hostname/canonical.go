// Package hostname gives every host name one canonical form, so that TLS policy, authentication, routing and metrics
// can never disagree about which host they speak of.
//
// Canonical is the only way in from strangers' bytes: what it returns compares with ==, is lower-case ASCII and holds
// nothing but letters, digits, '-', '_', '.' and, in an IPv6 address, ':'. What it refuses has no canonical form and must be
// answered as a bad request. The package resolves nothing and knows no list of public suffixes.
package hostname

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxHost  = 253  // octets of a name in DNS, without the root's dot
	maxLabel = 63   // octets of a label in DNS
	maxInput = 1024 // what is looked at at all: caps the work that a stranger's Unicode can cause
)

var (
	errEmpty      = errors.New("host is empty")
	errLong       = fmt.Errorf("longer than %d bytes", maxHost)
	errLabelLong  = fmt.Errorf("a label is longer than %d bytes", maxLabel)
	errLabelEmpty = errors.New("empty label")
	errHyphen     = errors.New("a label begins or ends with '-'")
	errUserinfo   = errors.New("user information is not part of a host")
	errBrackets   = errors.New("brackets hold anything but an IPv6 address")
	errZone       = errors.New("an address with a zone means nothing to others")
	errPort       = errors.New("port is not a number from 1 to 65535")
	errNumeric    = errors.New("ends in a number but is no IPv4 address")
	errForm       = errors.New("has no form in ASCII")
	errUTF8       = errors.New("not UTF-8")
	errPattern    = errors.New("a pattern takes no port")
)

// profile is UTS #46 processing for lookup, as browsers do it: it maps case, width and dots, and checks bidi and joiners.
// Two of the usual rules are off: underscores, which plain() allows and checks, and hyphens in third and fourth place, which
// real names have (r3---sn-x.example.com). It is never written to.
var profile = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.Transitional(false),
	idna.StrictDomainName(false),
	idna.CheckHyphens(false),
)

// Canonical is the one form of a host as it stands in a Host header, an SNI, a URL or a setting: without port and trailing
// dot, lower case, in ASCII (IDNA). An IP literal is in netip's form, IPv6 without brackets, IPv4 in IPv6 as IPv4.
//
// A port is dropped when it is well formed. Errors are for: nothing at all, more than 253 bytes, labels that are empty or
// longer than 63 bytes, bytes that no host has (controls, spaces, '/', '%', '@', …), bad ports, zones, numbers such as
// "127.1" and "0x7f.0.0.1" that some resolvers take for an address.
//
// It is idempotent, and allocates nothing for a name that is canonical already.
func Canonical(host string) (string, error) {
	c, _, err := canonical(host)
	if err != nil {
		return "", refused(host, err)
	}
	return c, nil
}

func refused(host string, err error) error {
	if host == "" {
		return err
	}
	return fmt.Errorf("host %.80q: %w", host, err)
}

// canonical also says whether a port, be it an empty one, was dropped.
func canonical(host string) (name string, port bool, err error) {
	switch {
	case host == "":
		return "", false, errEmpty
	case len(host) > maxInput:
		return "", false, errLong
	}
	host, bare, port, err := cutPort(host)
	if err != nil {
		return "", port, err
	}
	if bare {
		name, err = address(host)
	} else {
		name, err = domain(host)
	}
	return name, port, err
}

// cutPort splits what RFC 3986 calls host and port; the port may be empty. bare means that host is an IPv6 address, out of
// its brackets or never in any.
func cutPort(s string) (host string, bare, port bool, err error) {
	if s[0] == '[' {
		host, rest, closed := strings.Cut(s[1:], "]")
		switch {
		case !closed || !strings.Contains(host, ":"):
			return "", false, false, errBrackets
		case rest == "":
			return host, true, false, nil
		case rest[0] != ':':
			return "", false, false, errBrackets
		}
		return host, true, true, checkPort(rest[1:])
	}
	i := strings.IndexByte(s, ':')
	switch {
	case i < 0:
		return s, false, false, nil
	case strings.IndexByte(s[i+1:], ':') >= 0 && !strings.Contains(s, "@"):
		return s, true, false, nil
	}
	if strings.Contains(s, "@") {
		return "", false, false, errUserinfo
	}
	return s[:i], false, true, checkPort(s[i+1:])
}

func checkPort(s string) error {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 16) // takes no sign
	if err != nil || n == 0 || len(s) > 5 {
		return errPort
	}
	return nil
}

func address(s string) (string, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return "", errors.New("not an IPv6 address")
	case a.Zone() != "":
		return "", errZone
	}
	return a.Unmap().String(), nil
}

func domain(s string) (string, error) {
	name := trimDot(s)
	kind, err := scan(name)
	if err != nil {
		return "", err
	}
	switch kind {
	case lower:
	case mixed:
		name = strings.ToLower(name)
	case foreign:
		if name, err = idnaForm(s); err != nil {
			return "", err
		}
	}
	return name, literal(name)
}

// idnaForm maps a name that is not plain ASCII, its last dot included.
func idnaForm(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errUTF8
	}
	name, err := profile.ToASCII(s)
	if err != nil {
		return "", err
	}
	// The rule of bidi looks at what was there before the mapping, which may make a letter that is written from the right
	// of a symbol that is not: only what passes once more has a form.
	if name, err = profile.ToASCII(name); err != nil {
		return "", err
	}
	// The mapping makes a dot of each of these; a dot at the end that comes from nothing follows an empty label.
	if last, _ := utf8.DecodeLastRuneInString(s); strings.ContainsRune(".\u3002\uff0e\uff61", last) {
		name = trimDot(name)
	}
	// It may also have brought forth nothing at all, or ASCII that no host has.
	if kind, err := scan(name); err != nil {
		return "", err
	} else if kind == mixed || !ascii(name) {
		return "", errForm
	}
	return name, nil
}

// trimDot drops the root's dot, and only one: "a.." has an empty label.
func trimDot(s string) string { return strings.TrimSuffix(s, ".") }

// literal refuses what some would take for an IPv4 address though it is not one in the usual form: a name whose last label
// is a number, as RFC 3696 and the URL standard have it.
func literal(s string) error {
	last := s[strings.LastIndexByte(s, '.')+1:]
	if !number(last) {
		return nil
	}
	if a, err := netip.ParseAddr(s); err != nil || !a.Is4() {
		return errNumeric
	}
	return nil
}

func number(label string) bool {
	hex := strings.HasPrefix(label, "0x")
	if hex {
		label = label[2:]
	}
	for _, c := range []byte(label) {
		if (c < '0' || c > '9') && (!hex || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for _, c := range []byte(s) {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
