package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"culvert/internal/auth"
	"culvert/internal/cidr"
	"culvert/internal/config/file"
)

var (
	errEmptyValue = errors.New("is empty; give it a value or leave it out")
	errControl    = errors.New("holds a line break or another control character")
)

// parse reads one value as typed into the field that target points to. In a list, fresh means that what the list held was
// the default, which the value replaces. Errors read after "--flag: ".
func parse(target any, raw string, fresh bool) error {
	if raw == "" {
		return errEmptyValue
	}
	if !file.Printable(raw) {
		return errControl
	}
	switch t := target.(type) {
	case *string:
		*t = raw
	case *auth.Secret:
		*t = auth.NewSecret(raw)
	case *bool:
		v, err := strconv.ParseBool(raw)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false; write one of them", shorten(raw))
		}
		*t = v
	case *int:
		v, err := strconv.Atoi(raw)
		if err != nil {
			return fmt.Errorf("%q is not a whole number; write digits alone", shorten(raw))
		}
		*t = v
	case *float64:
		v, err := strconv.ParseFloat(raw, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number; write it as in 12.5", shorten(raw))
		}
		*t = v
	case *uint16:
		v, err := strconv.ParseUint(raw, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a port; give a number from 0 (any free port) to 65535", shorten(raw))
		}
		*t = uint16(v)
	case *time.Duration:
		return parseDuration(t, raw)
	case *auth.Ports:
		if !fresh && !t.IsZero() {
			raw = t.String() + "," + raw
		}
		v, err := auth.ParsePorts(raw)
		if err != nil {
			return err
		}
		*t = v
	case *LogLevel:
		return t.parse(raw)
	case *Lines:
		if fresh {
			*t = nil
		}
		*t = append(*t, raw)
	default:
		return parseList(target, raw, fresh)
	}
	return nil
}

// parseList reads a comma list into a repeatable setting.
func parseList(target any, raw string, fresh bool) error {
	switch t := target.(type) {
	case *[]string:
		return appendEach(t, raw, fresh, func(s string) ([]string, error) { return []string{s}, nil })
	case *[]netip.Prefix:
		return appendEach(t, raw, fresh, parsePrefix)
	case *[]uint16:
		return appendEach(t, raw, fresh, parsePortRange)
	case *map[string]string:
		var pairs [][2]string
		if err := appendEach(&pairs, raw, true, parseLabel); err != nil {
			return err
		}
		if fresh || *t == nil {
			*t = map[string]string{}
		}
		for _, kv := range pairs {
			(*t)[kv[0]] = kv[1]
		}
		return nil
	default:
		panic(fmt.Sprintf("a setting of type %T", target))
	}
}

func repeatable(target any) bool {
	switch target.(type) {
	case *[]string, *Lines, *[]netip.Prefix, *[]uint16, *map[string]string, *auth.Ports:
		return true
	}
	return false
}

func appendEach[T any](list *[]T, raw string, fresh bool, read func(string) ([]T, error)) error {
	var items []T
	for item := range strings.SplitSeq(raw, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			return fmt.Errorf("%q has an empty item; separate items by one comma", shorten(raw))
		}
		found, err := read(item)
		if err != nil {
			return err
		}
		items = append(items, found...)
	}
	if fresh {
		*list = nil
	}
	*list = append(*list, items...)
	return nil
}

func parsePrefix(s string) ([]netip.Prefix, error) {
	p, err := cidr.Parse(s)
	return []netip.Prefix{p}, err
}

// maxPorts is how many ports one range may open: each costs a listener on the server.
const maxPorts = 1024

func parsePortRange(s string) ([]uint16, error) {
	from, to, isRange := strings.Cut(s, "-")
	first, err := parsePort(from)
	if err != nil {
		return nil, err
	}
	if !isRange {
		return []uint16{first}, nil
	}
	last, err := parsePort(to)
	if err != nil {
		return nil, err
	}
	if last < first || last-first >= maxPorts {
		return nil, fmt.Errorf("%q is not a range of 1 to %d ports", s, maxPorts)
	}
	ports := make([]uint16, 0, last-first+1)
	for port := int(first); port <= int(last); port++ {
		ports = append(ports, uint16(port))
	}
	return ports, nil
}

// parsePort reads a port that others connect to: unlike one to listen on, it is never 0.
func parsePort(s string) (uint16, error) {
	v, err := strconv.ParseUint(s, 10, 16)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("%q is not a port from 1 to 65535", shorten(s))
	}
	return uint16(v), nil
}

func parseLabel(s string) ([][2]string, error) {
	k, v, ok := strings.Cut(s, "=")
	if !ok || !word(k) || len(v) > 256 {
		return nil, fmt.Errorf("%q is not a label; write KEY=VALUE, the key of letters, digits, '.', '-' and '_'", shorten(s))
	}
	return [][2]string{{k, v}}, nil
}

// parseDuration reads Go's form, and days, in which people count the life of tokens.
func parseDuration(t *time.Duration, raw string) (err error) {
	*t, err = file.ParseDuration(raw)
	return err
}

// word says whether s is 1 to 128 letters, digits, '.', '-' and '_': what identities and keys are made of.
func word(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
			return false
		}
		return true
	})
}

// shorten keeps what a message quotes to a line.
func shorten(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
