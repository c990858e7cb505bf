package file

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Field is a key of a mapping, as the tags of a struct's field describe it:
//
//	key:"max_conns"    the key; a field without it is not in the file
//	help:"…"           one line, lower case
//	default:"10s"      the value when the key is left out, as written in the file; the zero value, if left out
//	shown:"everyone"   the default as the reference tells it, where it is found out elsewhere
//	unit:"HOST:PORT"   what the value is, for the reference
//	values:"tcp udp"   all the values there are
//	words:"off v1"     words that may stand for the whole mapping; its type is Shorthand
//	required:"true"    the mapping makes no sense without it
//	min, max, above    bounds of a number or duration; above is not within
//	selects:"true"     its value is what only of the other fields asks about
//	only:"udp"         the key belongs to mappings that selected one of these
//	raw:"true"         the text may hold control characters
//
// Fields of embedded structs count as the struct's own.
type Field struct {
	Key, Help, Default, Shown, Unit string
	Values, Words, Only             []string
	Required                        bool
	Type                            reflect.Type

	min, max, above string
	selects, raw    bool
	index           []int
}

// Shorthand is a mapping that a word may stand for. Both methods are of the pointer.
type Shorthand interface {
	// SetWord takes one of the words of the field's tag. The other keys have their defaults already.
	SetWord(word string)
	// Word is the word that stands for the value, "" if none does.
	Word() string
}

// Fields are the keys of a struct, in the order of its fields. Wrong tags are mistakes of this program, and panic.
func Fields(t reflect.Type) []Field {
	var fields []Field
	for f := range t.Fields() {
		key, tagged := f.Tag.Lookup("key")
		switch {
		case f.Anonymous:
			for _, inner := range Fields(f.Type) {
				inner.index = append(slices.Clone(f.Index), inner.index...)
				fields = append(fields, inner)
			}
		case tagged:
			fields = append(fields, describe(key, f))
		}
	}
	return fields
}

func describe(key string, f reflect.StructField) Field {
	tag := f.Tag.Get
	field := Field{
		Key: key, Help: tag("help"), Default: tag("default"), Shown: tag("shown"), Unit: tag("unit"),
		Values: strings.Fields(tag("values")), Words: strings.Fields(tag("words")), Only: strings.Fields(tag("only")),
		Required: tag("required") == "true", Type: f.Type,
		min: tag("min"), max: tag("max"), above: tag("above"), selects: tag("selects") == "true", raw: tag("raw") == "true",
		index: f.Index,
	}
	if field.Help == "" {
		panic(fmt.Sprintf("key %s of the file has no help", key))
	}
	if len(field.Words) > 0 && !reflect.PointerTo(f.Type).Implements(reflect.TypeFor[Shorthand]()) {
		panic(fmt.Sprintf("key %s of the file has words, and its type is no Shorthand", key))
	}
	return field
}

// applies says whether the key belongs to a mapping that selected this.
func (f Field) applies(selected string) bool {
	return len(f.Only) == 0 || selected == "" || slices.Contains(f.Only, selected)
}

// selector is the field that selects, if any.
func selector(fields []Field) (Field, bool) {
	i := slices.IndexFunc(fields, func(f Field) bool { return f.selects })
	if i < 0 {
		return Field{}, false
	}
	return fields[i], true
}
