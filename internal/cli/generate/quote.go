package generate

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errUnquotable = errors.New("has a line break, another control character or broken UTF-8, which cannot be written down safely")
	errPath       = errors.New("has a character that a unit cannot hold in a path: use letters, digits and / . - _ + @ ~ and single spaces inside")
)

// checkValue refuses what neither a unit nor a manifest may carry.
func checkValue(s string) error {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool {
		return unicode.IsControl(c) || c == '\u2028' || c == '\u2029' || c == '\ufeff'
	}) {
		return errUnquotable
	}
	return nil
}

// quoteExec writes one argument of systemd's ExecStart=: it stays one word, and no specifier (%), variable ($) or escape (\)
// in it is expanded. The value must have passed checkValue.
func quoteExec(s string) string {
	q := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(s)
	if s != "" && !strings.ContainsFunc(s, special) {
		return q
	}
	return `"` + q + `"`
}

// special says whether a character needs quotes: all but those known to mean nothing to systemd.
func special(c rune) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return false
	}
	return !strings.ContainsRune("/.-_+@:=,*%$~[]", c)
}

// checkPath refuses paths that would need more than doubled '%' in settings whose quoting differs from ExecStart's.
func checkPath(p string) error {
	if strings.ContainsFunc(p, func(c rune) bool {
		return c != '%' && c != ' ' && c != '~' && (special(c) || strings.ContainsRune(":=,*$[]", c)) && c < utf8.RuneSelf
	}) || strings.Contains(p, "  ") || strings.HasSuffix(p, " ") {
		return errPath
	}
	return nil
}

// quotePath writes a path that passed checkPath into a setting that expands specifiers.
func quotePath(p string) string { return strings.ReplaceAll(p, "%", "%%") }

// quoteContainer writes one argument of a container: Kubernetes expands $(NAME), and reads $$ as $.
func quoteContainer(s string) string { return strings.ReplaceAll(s, "$", "$$") }
