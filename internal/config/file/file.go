// Package file reads YAML strictly into structs that describe themselves by tags, and tells all that is wrong at once.
//
// Every Fault has the line and column, what is wrong and what to write instead, with the nearest right name for one that
// does not exist. Keys that are unknown, given twice or without a value, values of another kind, out of range or not among
// those there are, and empty lists are faults: nothing is guessed and nothing ignored. Anchors, aliases and merges (<<) work,
// within a bound on what they may come to. From the same tags come the JSON schema, the table of the reference and the
// writer, which cannot therefore disagree with the reader.
//
// What the values mean to each other is the business of who reads: it finds the place of a value by At. The package knows
// nothing of what it reads.
package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the most that a file may have: room for tens of thousands of routes.
const MaxSize = 4 << 20

// Position is a place in a file, both counted from 1. The zero Position is none.
type Position struct{ Line, Column int }

// Doc is a file that is YAML, with a mapping at its top.
type Doc struct {
	// Name is the file's name, as faults tell it.
	Name string

	root *yaml.Node
	at   map[string]Position // of what Decode has met, by path
}

// Read parses the file at path. The error is Faults.
func Read(path string) (*Doc, error) {
	content, err := content(path)
	if err != nil {
		return nil, Faults{*err}
	}
	return Parse(path, content)
}

func content(path string) ([]byte, *Fault) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return nil, unreadable(path, err)
	case info.IsDir():
		return nil, &Fault{File: path, Fault: "is a folder", Remedy: "give the file in it"}
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	switch {
	case err != nil:
		return nil, unreadable(path, err)
	case len(b) > MaxSize:
		return nil, tooLarge(path)
	}
	return b, nil
}

// CheckPath is what to do about a path that leads nowhere.
func CheckPath(path string) string {
	if filepath.IsAbs(path) {
		return "check the path"
	}
	return "check the path, which is relative to the folder that the command runs in"
}

func unreadable(path string, err error) *Fault {
	fault := Fault{File: path, Fault: err.Error(), Remedy: "check where the path leads"}
	var at *os.PathError
	if errors.As(err, &at) {
		fault.Fault = "cannot be read: " + at.Err.Error()
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		fault.Fault, fault.Remedy = "there is no such file", CheckPath(path)
	case errors.Is(err, os.ErrPermission):
		fault.Remedy = "let the user that Culvert runs as read it"
	}
	return &fault
}

func tooLarge(name string) *Fault {
	return &Fault{File: name, Fault: fmt.Sprintf("is larger than %d MiB", MaxSize>>20), Remedy: "is it the right file? A configuration is text of a few KiB"}
}

// Parse reads content, whose name is for faults. The error is Faults.
func Parse(name string, content []byte) (*Doc, error) {
	if fault := readable(name, content); fault != nil {
		return nil, Faults{*fault}
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var top, next yaml.Node
	if err := dec.Decode(&top); errors.Is(err, io.EOF) {
		return nil, Faults{empty(name)}
	} else if err != nil {
		return nil, Faults{syntax(name, content, err)}
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		return nil, Faults{{
			File: name, Position: Position{next.Line, next.Column}, Fault: "a second document begins here",
			Remedy: "leave out the line ---, or make two files of it",
		}}
	case !errors.Is(err, io.EOF):
		return nil, Faults{syntax(name, content, err)}
	}
	root := top.Content[0]
	switch {
	case root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null":
		return nil, Faults{empty(name)}
	case root.Kind != yaml.MappingNode:
		return nil, Faults{noMapping(name, content, root)}
	}
	return &Doc{Name: name, root: root, at: map[string]Position{"": {root.Line, root.Column}}}, nil
}

func empty(name string) Fault {
	return Fault{File: name, Position: Position{1, 1}, Fault: "is empty", Remedy: "write KEY: VALUE lines"}
}

// readable finds what no YAML can be made of.
func readable(name string, content []byte) *Fault {
	switch {
	case len(content) > MaxSize:
		return tooLarge(name)
	case bytes.HasPrefix(content, []byte{0xFF, 0xFE}), bytes.HasPrefix(content, []byte{0xFE, 0xFF}):
		return &Fault{File: name, Position: Position{1, 1}, Fault: "is text in UTF-16", Remedy: "save it as UTF-8"}
	}
	place := Position{1, 1}
	for rest := content; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7F:
			return &Fault{
				File: name, Position: place, Fault: fmt.Sprintf("is not text: there is a byte 0x%02X", rest[0]),
				Remedy: "give a file of YAML in UTF-8",
			}
		case r == '\n':
			place = Position{place.Line + 1, 0}
		}
		place.Column++
		rest = rest[size:]
	}
	return nil
}

// At is the place of a value by its path, as in "entrypoints[0].routes[1].upstream". Of what is not in the file it is the
// place of what it would be part of; false says so.
func (d *Doc) At(path string) (Position, bool) {
	at, ok := d.at[path]
	for p := path; !ok && p != ""; {
		p = Parent(p)
		if at, found := d.at[p]; found {
			return at, false
		}
	}
	return at, ok
}

// Fault is one at the place of the value of a path.
func (d *Doc) Fault(path, remedy, format string, args ...any) Fault {
	at, _ := d.At(path)
	return Fault{File: d.Name, Position: at, Path: path, Fault: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Parent is the path of what a path's value is part of.
func Parent(path string) string {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '.' || path[i] == '[' {
			return path[:i]
		}
	}
	return ""
}

// Join is the path of a key of the mapping at path.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Item is the path of an item of the list at path.
func Item(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
