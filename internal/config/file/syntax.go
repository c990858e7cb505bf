package file

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// syntax turns what the YAML parser says into a fault. The parser knows the line only, and the column follows from what
// stands there.
func syntax(name string, content []byte, err error) Fault {
	if foreign := foreignFormat(name, content); foreign != nil {
		return *foreign
	}
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	rest, told := strings.CutPrefix(message, "line ") // not of the first line
	if told {
		number, text, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, message = n, text
		}
	}
	if tab, ok := indentedByTab(content); ok {
		return Fault{File: name, Position: tab, Fault: "a tab indents this line", Remedy: "YAML indents with spaces"}
	}
	m := explain(message)
	if m.above && told {
		line++
	}
	if m.indented { // the parser tells where the block begins
		if at, ok := misfit(content, line); ok {
			return Fault{
				File: name, Position: at, Fault: "this line is indented like none of those above it",
				Remedy: "indent the keys of one mapping, and the items of one list, alike",
			}
		}
	}
	at := Position{line, column(content, line, m.sign)}
	if _, rest, ok := strings.Cut(message, "unknown anchor '"); ok { // the parser tells no line
		anchor, _, _ := strings.Cut(rest, "'")
		if i := bytes.Index(content, []byte("*"+anchor)); i >= 0 {
			at = position(content, i)
		}
	}
	return Fault{File: name, Position: at, Fault: m.fault, Remedy: m.remedy}
}

// meaning is what an error of the YAML parser means to a person.
type meaning struct {
	has, fault, remedy string
	sign               *regexp.Regexp // what to look for in the line: its first group, if it has one; nil: where the text begins
	above              bool           // the parser tells the line above
	indented           bool           // indentation is the likely cause
}

// explain finds the meaning of an error of the YAML parser. It quotes nothing: the line may hold a secret.
func explain(message string) meaning {
	for _, known := range []meaning{
		{"could not find expected ':'", "a line is neither KEY: VALUE nor an item of a list", "write a colon and a space after a key, and close every quote", nil, false, false},
		{"mapping values are not allowed", "a second key stands on one line, or a value is indented like keys", "write one KEY: VALUE a line, and quote a value that has ': ' in it", nil, false, false},
		{"did not find expected key", "a line does not fit those above it", "indent the keys of one mapping alike, and begin items of a list with '- '", nil, true, true},
		{"did not find expected '-' indicator", "a line within a list does not begin an item", "begin each item with '- ', all indented alike", nil, true, true},
		{"did not find expected ',' or '}'", "a '{' is not closed, or a comma is missing in it", "write {KEY: VALUE, KEY: VALUE}", openBrace, true, false},
		{"did not find expected ',' or ']'", "a '[' is not closed, or a comma is missing in it", "write [ITEM, ITEM]", openBracket, true, false},
		{"did not find expected node content", "a value is missing here", "quote a value that begins with ':' or '[', as in \":80\" and \"[::1]:80\", or with one of ,]}%@`", noValue, true, false},
		{"found character that cannot start any token", "a value begins with a sign that YAML keeps for itself", "quote it", nil, false, false},
		{"found unexpected end of stream", "a quote is opened and never closed", "close it", nil, false, false},
		{"found unknown escape character", "a backslash in double quotes is followed by something unknown", `write \\ for a backslash, or use single quotes`, nil, false, false},
		{"block sequence entries are not allowed", "an item of a list begins where none can stand", "begin the list on a line of its own", nil, false, false},
		{"unknown anchor", "an alias (*) names no anchor (&)", "quote a value that begins with '*', as in \"*.example.com\"", nil, false, false},
		{"did not find expected alphabetic or numeric character", "an alias (*) or anchor (&) has no name", "quote a value that begins with '*' or '&', as in \"*.example.com\"", star, false, false},
		{"exceeded max depth", "is nested too deeply", "is it the right file?", nil, false, false},
		{"control characters are not allowed", "is not text", "give a file of YAML in UTF-8", nil, false, false},
	} {
		if strings.Contains(message, known.has) {
			return known
		}
	}
	return meaning{fault: "is not YAML: " + message, remedy: "check the indentation, the quotes and the brackets of this line and the one before"}
}

// Where in its line a fault lies.
var (
	openBrace   = regexp.MustCompile(`\{`)
	openBracket = regexp.MustCompile(`\[`)
	star        = regexp.MustCompile(`\*`)
	noValue     = regexp.MustCompile("[:,{\\[]\\s*(?:[^\\s:,]+:\\s+)?(:[^\\s]|\\[[^\\]]*\\]:|[,\\]}%@`])")
)

// position is where the byte at an offset stands.
func position(content []byte, offset int) Position {
	before := content[:offset]
	return Position{1 + bytes.Count(before, []byte("\n")), offset - bytes.LastIndexByte(before, '\n')}
}

// column is where a sign stands in a line, or where its text begins.
func column(content []byte, line int, sign *regexp.Regexp) int {
	for i := 1; i < line; i++ {
		_, rest, ok := bytes.Cut(content, []byte("\n"))
		if !ok {
			return 1
		}
		content = rest
	}
	text, _, _ := bytes.Cut(content, []byte("\n"))
	if sign != nil {
		if at := sign.FindSubmatchIndex(text); at != nil {
			return at[len(at)-2] + 1
		}
	}
	return 1 + len(text) - len(bytes.TrimLeft(text, " \t"))
}

// indentedByTab finds the first line that has a tab before its text.
func indentedByTab(content []byte) (Position, bool) {
	for line := 1; len(content) > 0; line++ {
		text, rest, _ := bytes.Cut(content, []byte("\n"))
		indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if i := bytes.IndexByte(indent, '\t'); i >= 0 && len(indent) < len(bytes.TrimRight(text, "\r")) {
			return Position{line, i + 1}, true
		}
		content = rest
	}
	return Position{}, false
}

// foreignFormat knows the files of neighbours, which no remedy for YAML helps.
func foreignFormat(name string, content []byte) *Fault {
	for _, known := range []struct {
		format  string
		pattern *regexp.Regexp
	}{
		{"HAProxy", regexp.MustCompile(`(?m)^\s*(?:(?:frontend|backend|listen)\s+[\w.-]+\s*$|(?:global|defaults)\s*$)`)},
		{"nginx", regexp.MustCompile(`(?m)^\s*(?:(?:stream|http|server|events)|(?:upstream|map|location)\s[^\n{]*?)\s*\{\s*(?:#.*)?$`)},
	} {
		if at := known.pattern.FindIndex(content); at != nil {
			start := at[0] + len(content[at[0]:at[1]]) - len(bytes.TrimLeft(content[at[0]:at[1]], " \t\r\n"))
			return &Fault{
				File: name, Position: position(content, start),
				Fault:  fmt.Sprintf("looks like a configuration of %s, not of Culvert", known.format),
				Remedy: "examples/ has the common ones translated, docs/configuration.md every key",
			}
		}
	}
	return nil
}

// noMapping is the fault of a file that is YAML, but not of keys and values.
func noMapping(name string, content []byte, root *yaml.Node) Fault {
	if foreign := foreignFormat(name, content); foreign != nil {
		return *foreign
	}
	what := "a list"
	if root.Kind == yaml.ScalarNode {
		what = "plain text"
	}
	return Fault{
		File: name, Position: Position{root.Line, root.Column}, Fault: "is " + what + " where keys and values belong",
		Remedy: "write KEY: VALUE lines",
	}
}

// misfit is the first line, at or behind the one given, that goes back to an indentation that no line above it has. It reads
// lines alone, and takes no notice of those within brackets.
func misfit(content []byte, from int) (Position, bool) {
	columns := []int{-1} // of the blocks that are open
	brackets := 0
	for number, line := range bytes.Split(content, []byte("\n")) {
		text := bytes.TrimLeft(line, " ")
		if len(bytes.TrimSpace(text)) == 0 || text[0] == '#' {
			continue
		}
		at, within := len(line)-len(text), brackets > 0
		text, _, _ = bytes.Cut(text, []byte(" #"))
		brackets += bytes.Count(text, []byte("{")) + bytes.Count(text, []byte("[")) - bytes.Count(text, []byte("}")) - bytes.Count(text, []byte("]"))
		if within {
			continue
		}
		open := len(columns)
		for columns[len(columns)-1] > at {
			columns = columns[:len(columns)-1]
		}
		if columns[len(columns)-1] < at {
			if len(columns) < open && number+1 >= from {
				return Position{number + 1, at + 1}, true
			}
			columns = append(columns, at)
		}
		for bytes.HasPrefix(text, []byte("- ")) {
			rest := bytes.TrimLeft(text[1:], " ")
			at += len(text) - len(rest)
			text, columns = rest, append(columns, at)
		}
	}
	return Position{}, false
}
