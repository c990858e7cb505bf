package hostname

import (
	"fmt"
	"unicode/utf8"
)

// kind is what a name's bytes ask for on the way to the canonical form.
type kind uint8

const (
	lower   kind = iota // nothing
	mixed               // to be lowered
	foreign             // IDNA: it has bytes beyond ASCII, or a label that claims to be Punycode
)

// scan looks at every byte once and refuses what no mapping could make a host of. Lengths and empty labels of a foreign name
// are for the scan after the mapping.
func scan(s string) (kind, error) {
	k, start := lower, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case 'A' <= c && c <= 'Z':
			k = max(k, mixed)
		case c == '.':
			if err := label(s[start:i]); err != nil {
				return k, err
			}
			start = i + 1
		case c >= utf8.RuneSelf:
			return foreign, nil
		case c == '@':
			return k, errUserinfo
		default:
			return k, fmt.Errorf("byte %q is not allowed", c)
		}
		if i-start == 3 && puny(s[start:i+1]) {
			k = foreign
		}
	}
	if s == "" {
		return k, errEmpty
	}
	if err := label(s[start:]); err != nil {
		return k, err
	}
	if len(s) > maxHost {
		return k, errLong
	}
	return k, nil
}

func puny(s string) bool { return s[0]|0x20 == 'x' && s[1]|0x20 == 'n' && s[2] == '-' && s[3] == '-' }

func label(s string) error {
	switch {
	case s == "":
		return errLabelEmpty
	case len(s) > maxLabel:
		return errLabelLong
	case s[0] == '-' || s[len(s)-1] == '-':
		return errHyphen
	}
	return nil
}
