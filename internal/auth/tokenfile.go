package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"

	"culvert/internal/hostname"

	"go.yaml.in/yaml/v3"
)

// tokenFile and what it holds are the YAML of a token file, as it is read: every text knows its line.
type tokenFile struct {
	Tokens []tokenRecord `yaml:"tokens"`
}

type tokenRecord struct {
	ID      text `yaml:"id"`
	Name    text `yaml:"name"`
	Hash    text `yaml:"hash"`
	Created text `yaml:"created"`
	Expires text `yaml:"expires"`
	Offer   struct {
		Hosts []text `yaml:"hosts"`
		Ports []text `yaml:"ports"`
		Names []text `yaml:"names"`
	} `yaml:"offer"`
	Visit   []text `yaml:"visit"`
	Forward []text `yaml:"forward"`
	Divert  []text `yaml:"divert"`
	Read    bool   `yaml:"read"`
	Admin   bool   `yaml:"admin"`
}

// text is a scalar as it is written, be it for YAML a number (an id such as 12345678) or a time.
type text struct {
	value string
	line  int
}

// UnmarshalYAML takes any scalar.
func (t *text) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: want a single value", n.Line)}}
	}
	t.line = n.Line
	if n.ShortTag() != "!!null" {
		t.value = n.Value
	}
	return nil
}

// ReadTokens reads a token file. Its errors name the file and the line, all that are found at once, and never a hash.
func ReadTokens(path string) ([]TokenEntry, error) {
	_, b, err := readTokenFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	return parseTokens(path, b)
}

// parseTokens reads a token file's content; name is for its errors.
func parseTokens(name string, content []byte) ([]TokenEntry, error) {
	var file tokenFile
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, atLines(name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one YAML document", name)
	}
	p := tokenParser{file: name, content: content, lines: map[string]int{}}
	entries := make([]TokenEntry, 0, len(file.Tokens))
	for i, r := range file.Tokens {
		entries = append(entries, p.entry(i, r))
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return entries, nil
}

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	yamlType = regexp.MustCompile(` in type .*$`)
	// yamlValue is how the decoder quotes a value that it could not use: it may be a token that went astray.
	yamlValue = regexp.MustCompile("cannot unmarshal (\\S+)(?: `.*`)? into .*")
)

// atLines gives YAML's errors the form file:line: message, without Go's types and the file's values.
func atLines(file string, err error) error {
	messages := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	var typed *yaml.TypeError
	if errors.As(err, &typed) {
		messages = typed.Errors
	}
	var errs []error
	for _, m := range messages {
		m = strings.ReplaceAll(m, "\n", " ")
		at := file
		if found := yamlLine.FindStringSubmatch(m); found != nil {
			at, m = file+":"+found[1], found[2]
		}
		m = yamlType.ReplaceAllString(yamlValue.ReplaceAllString(m, "a value of type $1 does not belong here"), "")
		errs = append(errs, fmt.Errorf("%s: %s", at, m))
	}
	return errors.Join(errs...)
}

// tokenParser turns records into entries and collects what is wrong with them.
type tokenParser struct {
	file    string
	content []byte
	lines   map[string]int // of ids seen
	errs    []error
}

func (p *tokenParser) fault(line int, err error) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %w", p.file, line, err))
}

// missing is a fault of the i-th record, which has no line of its own in a tokenRecord.
func (p *tokenParser) missing(i int, key string) {
	err := fmt.Errorf("%s: tokens[%d]: %s is missing", p.file, i, key)
	if _, tokens, e := tokensNode(p.content); e == nil && i < len(tokens.Content) {
		err = fmt.Errorf("%s:%d: %s is missing", p.file, tokens.Content[i].Line, key)
	}
	p.errs = append(p.errs, err)
}

func (p *tokenParser) entry(i int, r tokenRecord) TokenEntry {
	e := TokenEntry{ID: r.ID.value, Name: r.Name.value}
	switch {
	case r.ID.value == "":
		p.missing(i, "id")
	case !validID(r.ID.value):
		// The text is not shown: it could be a whole token, put into the wrong place.
		p.fault(r.ID.line, fmt.Errorf("id: want %d lower-case hexadecimal digits", idLength))
	case p.lines[r.ID.value] != 0:
		p.fault(r.ID.line, fmt.Errorf("id %s is on line %d already", r.ID.value, p.lines[r.ID.value]))
	default:
		p.lines[r.ID.value] = r.ID.line
	}
	if r.Hash.value == "" {
		p.missing(i, "hash")
	} else if _, err := parseHash(r.Hash.value); err != nil {
		p.fault(r.Hash.line, err)
	}
	if len(e.Name) > 255 || strings.ContainsFunc(e.Name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		p.fault(r.Name.line, fmt.Errorf("name %.80q: longer than 255 bytes, or not printable", e.Name))
	}
	e.hash = NewSecret(r.Hash.value)
	e.Created = p.time("created", r.Created)
	e.Expires = p.time("expires", r.Expires)
	e.Grant = p.grant(r)
	return e
}

func (p *tokenParser) time(key string, t text) time.Time {
	if t.value == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, t.value)
	if err != nil || at.IsZero() {
		p.fault(t.line, fmt.Errorf("%s %.80q: want a time such as 2027-01-31T12:00:00Z", key, t.value))
	}
	return at
}

func (p *tokenParser) grant(r tokenRecord) Grant {
	g := Grant{Read: r.Read, Administer: r.Admin}
	for _, t := range r.Offer.Hosts {
		host, err := hostname.ParsePattern(t.value)
		if err != nil {
			p.fault(t.line, err)
		}
		g.Hosts = append(g.Hosts, host)
	}
	var ranges []portRange
	for _, t := range r.Offer.Ports {
		ports, err := ParsePorts(t.value)
		if err == nil && ports.IsZero() {
			err = errors.New("port is empty")
		}
		if err != nil {
			p.fault(t.line, err)
		}
		ranges = append(ranges, ports.ranges...)
	}
	g.Ports = Ports{merge(ranges)}
	g.Names = p.texts(r.Offer.Names, checkGlob)
	g.Visit = p.texts(r.Visit, checkGlob)
	g.Divert = p.texts(r.Divert, checkGlob)
	g.Forward = p.texts(r.Forward, func(s string) error {
		_, err := parseTarget(s)
		return err
	})
	return g
}

func (p *tokenParser) texts(list []text, check func(string) error) []string {
	var values []string
	for _, t := range list {
		if err := check(t.value); err != nil {
			p.fault(t.line, err)
		}
		values = append(values, t.value)
	}
	return values
}
