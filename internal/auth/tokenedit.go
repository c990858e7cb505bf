package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const newTokenFile = `# Tokens of a Culvert server. Keep this file as secret as a private key: it holds no token, but whoever has
# a hash can pose as the server towards that token's bearer.
tokens: []
`

// AppendToken adds an entry to a token file, which is made if it is missing. The entry must come from NewToken; its name, if
// it has one, must be new to the file.
//
// The file is replaced in one step, 0600, comments and order kept. It is not touched if it is not in order.
func AppendToken(path string, entry TokenEntry) error {
	if err := editTokens(path, true, appending(entry)); err != nil {
		return fmt.Errorf("add a token: %w", err)
	}
	return nil
}

func appending(entry TokenEntry) change {
	return func(tokens *yaml.Node, entries []TokenEntry) error {
		for _, e := range entries {
			if e.Name != "" && e.Name == entry.Name {
				return fmt.Errorf("the name %q is that of token %s", e.Name, e.ID)
			}
		}
		n, err := recordNode(entry)
		if err != nil {
			return err
		}
		tokens.Style = 0 // "[]" takes no entry of several lines
		tokens.Content = append(tokens.Content, n)
		return nil
	}
}

// RevokeToken takes an entry out of a token file, by its id or its name. A server that runs closes the door on the token's
// bearer when it has read the file. The file is replaced as by AppendToken.
func RevokeToken(path, idOrName string) error {
	if err := editTokens(path, false, revoking(idOrName)); err != nil {
		return fmt.Errorf("revoke a token: %w", err)
	}
	return nil
}

func revoking(idOrName string) change {
	return func(tokens *yaml.Node, entries []TokenEntry) error {
		i, err := find(entries, idOrName)
		if err != nil {
			return err
		}
		tokens.Content = slices.Delete(tokens.Content, i, i+1)
		if len(tokens.Content) == 0 {
			tokens.Style = yaml.FlowStyle
		}
		return nil
	}
}

// find is the index of the entry with the id, else of the only one with the name.
func find(entries []TokenEntry, idOrName string) (int, error) {
	if i := slices.IndexFunc(entries, func(e TokenEntry) bool { return e.ID == idOrName }); i >= 0 {
		return i, nil
	}
	var ids []string
	last := -1
	for i, e := range entries {
		if e.Name == idOrName && idOrName != "" {
			ids, last = append(ids, e.ID), i
		}
	}
	switch len(ids) {
	case 0:
		return 0, fmt.Errorf("no token has the id or name %.80q", idOrName)
	case 1:
		return last, nil
	default:
		return 0, fmt.Errorf("several tokens have the name %.80q: say which id of %s", idOrName, strings.Join(ids, ", "))
	}
}

// change edits the sequence of tokens, whose entries it is also given, in the same order.
type change func(tokens *yaml.Node, entries []TokenEntry) error

func editTokens(path string, create bool, edit change) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // replace the file, not the link to it
	}
	return replace(path, func() ([]byte, error) {
		old, err := os.ReadFile(path)
		if create && errors.Is(err, fs.ErrNotExist) {
			old, err = []byte(newTokenFile), nil
		}
		if err != nil {
			return nil, err
		}
		return edit.apply(path, old)
	})
}

// apply is a file's content after the change; name is for errors. Neither the old content nor the new may be out of order.
func (edit change) apply(name string, old []byte) ([]byte, error) {
	entries, err := parseTokens(name, old)
	if err != nil {
		return nil, err
	}
	doc, tokens, err := tokensNode(old)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(tokens.Content) != len(entries) { // the decoder passes over null
		return nil, fmt.Errorf("%s: an entry of tokens is empty: take it out by hand", name)
	}
	if err := edit(tokens, entries); err != nil {
		return nil, err
	}
	content, err := encode(doc)
	if err != nil {
		return nil, err
	}
	if _, err := parseTokens(name, content); err != nil {
		return nil, fmt.Errorf("the edited file would not be in order: %w", err)
	}
	return content, nil
}

// tokensNode parses a file that parseTokens has accepted, and finds the sequence in it, or makes it.
func tokensNode(content []byte) (doc, tokens *yaml.Node, err error) {
	doc = new(yaml.Node)
	if err := yaml.Unmarshal(content, doc); err != nil {
		return nil, nil, err
	}
	if doc.Kind == 0 || doc.Content[0].Kind != yaml.MappingNode { // empty, or null
		doc.Kind, doc.Content = yaml.DocumentNode, []*yaml.Node{{Kind: yaml.MappingNode}}
	}
	root := doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "tokens" {
			continue
		}
		value := root.Content[i+1]
		if value.Kind == yaml.AliasNode {
			return nil, nil, errors.New("tokens is an alias: edit the file by hand")
		}
		if value.Kind != yaml.SequenceNode { // null
			*value = yaml.Node{Kind: yaml.SequenceNode, HeadComment: value.HeadComment, FootComment: value.FootComment}
		}
		return doc, value, nil
	}
	tokens = &yaml.Node{Kind: yaml.SequenceNode}
	root.Style = 0
	root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "tokens"}, tokens)
	return doc, tokens, nil
}

func encode(doc *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// recordNode is an entry as it is written.
func recordNode(e TokenEntry) (*yaml.Node, error) {
	type offer struct {
		Hosts []string `yaml:"hosts,omitempty,flow"`
		Ports []string `yaml:"ports,omitempty,flow"`
		Names []string `yaml:"names,omitempty,flow"`
	}
	record := struct {
		ID      string    `yaml:"id"`
		Name    string    `yaml:"name,omitempty"`
		Hash    string    `yaml:"hash"`
		Created time.Time `yaml:"created,omitempty"`
		Expires time.Time `yaml:"expires,omitempty"`
		Offer   offer     `yaml:"offer,omitempty"`
		Visit   []string  `yaml:"visit,omitempty,flow"`
		Forward []string  `yaml:"forward,omitempty,flow"`
		Divert  []string  `yaml:"divert,omitempty,flow"`
		Read    bool      `yaml:"read,omitempty"`
		Admin   bool      `yaml:"admin,omitempty"`
	}{
		ID: e.ID, Name: e.Name, Hash: e.hash.Reveal(), Created: e.Created, Expires: e.Expires,
		Offer: offer{patternTexts(e.Grant.Hosts), e.Grant.Ports.list(), e.Grant.Names},
		Visit: e.Grant.Visit, Forward: e.Grant.Forward, Divert: e.Grant.Divert, Read: e.Grant.Read, Admin: e.Grant.Administer,
	}
	n := new(yaml.Node)
	if err := n.Encode(record); err != nil {
		return nil, err
	}
	return n, nil
}
