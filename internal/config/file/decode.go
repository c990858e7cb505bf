package file

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"culvert/internal/nearest"
)

// Options say what Decode cannot know from the struct.
type Options struct {
	// Scalars are types of one value besides those of the language, durations and prefixes.
	Scalars []Scalar
	// Others are keys of the top that are not of the struct. Each that is in the file is handed to Take.
	Others []string
	Take   func(key string, v Value)
	// Habits are words that other programs have for keys, with the keys here: the first that a mapping has is meant.
	Habits map[string][]string
}

// maxValues is how many values a file may come to once aliases are put in place: a short file of aliases to aliases could
// otherwise fill the memory.
const maxValues = 500_000

// extension is what keys of the top begin with that are for the file's own use, to put anchors into.
const extension = "x-"

// decoder is one Decode.
type decoder struct {
	doc     *Doc
	options Options
	fields  map[reflect.Type][]Field
	faults  Faults
	values  int
}

// Decode reads the file into the struct that target points to, which is at its zero value, and fills in defaults. The error
// is Faults; the struct then has what could be read.
func (d *Doc) Decode(target any, o Options) error {
	dec := &decoder{doc: d, options: o, fields: map[reflect.Type][]Field{}}
	dec.mapping(d.root, reflect.ValueOf(target).Elem(), "")
	if dec.values > maxValues {
		reflect.ValueOf(target).Elem().SetZero() // there is no end to what else may be wrong with it
		dec.faults = Faults{{
			File: d.Name, Position: Position{1, 1}, Fault: fmt.Sprintf("comes to more than %d values when its aliases are put in place", maxValues),
			Remedy: "use fewer aliases (*) of lists",
		}}
	}
	return dec.faults.Err()
}

// Defaults sets the fields of the struct that target points to which have a default, as Decode does where a file leaves them
// out.
func Defaults(target any, o Options) {
	dec := &decoder{options: o, fields: map[reflect.Type][]Field{}}
	dec.defaults(reflect.ValueOf(target).Elem())
}

func (d *decoder) fieldsOf(t reflect.Type) []Field {
	fields, ok := d.fields[t]
	if !ok {
		fields = Fields(t)
		d.fields[t] = fields
	}
	return fields
}

func (d *decoder) fault(n *yaml.Node, path, remedy, format string, args ...any) {
	d.faults = append(d.faults, Fault{
		File: d.doc.Name, Position: Position{n.Line, n.Column}, Path: path, Fault: fmt.Sprintf(format, args...), Remedy: remedy,
	})
}

// wrong is a fault whose error has the form "FAULT; REMEDY".
func (d *decoder) wrong(n *yaml.Node, path string, err error) {
	fault, remedy, _ := strings.Cut(err.Error(), "; ")
	d.fault(n, path, remedy, "%s", fault)
}

// enter notes where a value stands, follows an alias to what it stands for, and says whether there is room for more.
func (d *decoder) enter(n *yaml.Node, path string) (*yaml.Node, bool) {
	d.doc.at[path] = Position{n.Line, n.Column}
	d.values++
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.values > maxValues {
		return n, false
	}
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		d.fault(n, path, "leave it out", "the tag %s means nothing here", quote(n.Tag))
		return n, false
	}
	return n, true
}

// value reads a node into v, which is a value of the field or an item of its list.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f Field, path string) {
	n, ok := d.enter(n, path)
	if !ok {
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		if isNull(n) {
			d.defaults(v.Elem())
			return
		}
		d.value(n, v.Elem(), f, path)
	case isNull(n):
		d.fault(n, path, "write one, or leave the key out", "has no value")
	case d.options.isScalar(v.Type()):
		d.scalar(n, v, f, path)
	case v.Kind() == reflect.Slice:
		d.list(n, v, f, path)
	case n.Kind == yaml.ScalarNode && len(f.Words) > 0:
		d.word(n, v, f, path)
	default:
		d.mapping(n, v, path)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, f Field, path string) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, path, "write one value", "is %s where one value belongs", kindOf(n))
		return
	}
	text := n.Value
	if n.ShortTag() == "!!binary" {
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil || !f.raw {
			d.fault(n, path, "write it as plain text", "is binary that cannot be used here")
			return
		}
		v.SetString(string(b))
		return
	}
	if err := d.options.parse(v, f, text); err != nil {
		if strings.ContainsAny(text, ", ") && f.Type.Kind() == reflect.Slice && len(f.Values) == 0 {
			err = fmt.Errorf("%s is not one value; write several as a list: [A, B]", quote(text))
		}
		d.wrong(n, path, err)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, f Field, path string) {
	item := v.Type().Elem()
	switch {
	case n.Kind == yaml.ScalarNode && d.options.isScalar(item):
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		d.scalar(n, v.Index(0), f, path)
		return
	case n.Kind == yaml.MappingNode && !d.options.isScalar(item):
		d.fault(n, path, "begin each of its items with '- '", "is one item where a list belongs")
		return
	case n.Kind != yaml.SequenceNode:
		d.fault(n, path, "begin each of its items with '- '", "is %s where a list belongs", kindOf(n))
		return
	case len(n.Content) == 0:
		d.fault(n, path, "put something in, or leave the key out", "is an empty list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		d.value(c, v.Index(i), f, Item(path, i))
		if d.values > maxValues {
			return
		}
	}
}

// word reads a word that stands for a whole mapping.
func (d *decoder) word(n *yaml.Node, v reflect.Value, f Field, path string) {
	if !slices.Contains(f.Words, n.Value) {
		keys := strings.Join(keysOf(d.fieldsOf(v.Type())), ", ")
		d.fault(n, path, instead(n.Value, f.Words)+", or the keys "+keys+" below it", "%s is unknown", quote(n.Value))
		return
	}
	d.defaults(v)
	v.Addr().Interface().(Shorthand).SetWord(n.Value)
}

// instead is the remedy for a word that is not among those there are.
func instead(word string, words []string) string {
	if best := nearest.Name(strings.ToLower(word), words); best != "" && len(words) > 3 {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "use " + OneOf(words)
}

// kindOf says what a node is.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "keys and values"
	}
	return "one value"
}

// pair is a key of a mapping and its value.
type pair struct{ key, value *yaml.Node }

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, path, d.instead(v.Type()), "is %s where keys and values belong", kindOf(n))
		return
	}
	given := map[string]pair{}
	d.collect(n, path, given, 0)
	fields := d.fieldsOf(v.Type())
	d.unknown(given, fields, path)
	selected := ""
	if f, ok := selector(fields); ok {
		d.field(n, v, f, given, path)
		selected = v.FieldByIndex(f.index).String()
	}
	for _, f := range fields {
		key, ok := given[f.Key]
		switch {
		case f.selects:
		case f.applies(selected):
			d.field(n, v, f, given, path)
		case ok:
			d.fault(key.key, Join(path, f.Key), "leave it out", "is for %s only, and this is %s", OneOf(f.Only), selected)
		}
	}
}

// instead is the remedy for something that is no mapping.
func (d *decoder) instead(t reflect.Type) string {
	fields := d.fieldsOf(t)
	switch {
	case len(fields) == 0:
		return "write {}"
	case len(fields) > 10:
		return "write KEY: VALUE lines below it"
	}
	return "write KEY: VALUE lines below it, of the keys " + strings.Join(keysOf(fields), ", ")
}

func keysOf(fields []Field) []string {
	keys := make([]string, 0, len(fields))
	for _, f := range fields {
		keys = append(keys, f.Key)
	}
	return keys
}

// field reads one key of a mapping, or sets its default.
func (d *decoder) field(n *yaml.Node, v reflect.Value, f Field, given map[string]pair, path string) {
	target := v.FieldByIndex(f.index)
	p, ok := given[f.Key]
	switch {
	case ok:
		d.value(p.value, target, f, Join(path, f.Key))
	case f.Required:
		unit := f.Unit
		if len(f.Values) > 0 {
			unit = strings.Join(f.Values, "|")
		}
		if unit == "" {
			unit = "…"
		}
		d.fault(n, path, "add "+f.Key+": "+unit, "%s is missing", f.Key)
	default:
		d.setDefault(target, f)
	}
}

// defaults fills a struct with the defaults of its fields, and of those within. What selects counts as it is, if it is set.
func (d *decoder) defaults(v reflect.Value) {
	fields := d.fieldsOf(v.Type())
	selected := ""
	if f, ok := selector(fields); ok {
		by := v.FieldByIndex(f.index)
		if by.IsZero() {
			d.setDefault(by, f)
		}
		selected = by.String()
	}
	for _, f := range fields {
		if !f.selects && f.applies(selected) {
			d.setDefault(v.FieldByIndex(f.index), f)
		}
	}
}

func (d *decoder) setDefault(v reflect.Value, f Field) {
	switch {
	case f.Default != "":
		if v.Kind() == reflect.Slice {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			v = v.Index(0)
		}
		if err := d.options.parse(v, f, f.Default); err != nil {
			panic(fmt.Sprintf("key %s of the file: default: %s", f.Key, err))
		}
	case v.Kind() == reflect.Struct && !d.options.isScalar(v.Type()):
		d.defaults(v)
	}
}

// collect gathers the keys of a mapping, those that it merges included: its own win over merged ones.
func (d *decoder) collect(n *yaml.Node, path string, given map[string]pair, depth int) {
	own := map[string]*yaml.Node{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		d.values++
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fault(key, path, "write KEY: VALUE", "a key is %s", kindOf(key))
			continue
		case key.ShortTag() == "!!merge":
			merged = append(merged, value)
			continue
		case own[key.Value] != nil:
			d.fault(key, Join(path, key.Value), "keep one of them", "is given twice, first in line %d", own[key.Value].Line)
			continue
		}
		own[key.Value] = key
		if _, ok := given[key.Value]; !ok {
			given[key.Value] = pair{key, value}
		}
	}
	for _, m := range merged {
		d.merge(m, path, given, depth)
	}
}

// maxMerges is how deeply mappings may merge others: one that merges itself never ends.
const maxMerges = 16

func (d *decoder) merge(n *yaml.Node, path string, given map[string]pair, depth int) {
	from := n
	if n.Kind == yaml.AliasNode {
		from = n.Alias
	}
	switch {
	case depth >= maxMerges || d.values > maxValues:
		d.fault(n, path, "merge fewer levels", "mappings merge each other too deeply")
	case from.Kind == yaml.MappingNode:
		d.collect(from, path, given, depth+1)
	case from.Kind == yaml.SequenceNode && n.Kind != yaml.AliasNode:
		for _, c := range from.Content {
			d.merge(c, path, given, depth+1)
		}
	default:
		d.fault(n, path, "write <<: *NAME of a mapping that has &NAME", "what is merged is no mapping")
	}
}

// unknown tells of keys that the mapping does not have, and hands out those that belong to others.
func (d *decoder) unknown(given map[string]pair, fields []Field, path string) {
	names := keysOf(fields)
	if path == "" {
		names = append(names, d.options.Others...)
	}
	for name, p := range given {
		if i := slices.Index(names, name); i >= 0 {
			if i >= len(fields) {
				d.take(name, p.value)
			}
			continue
		}
		if path == "" && strings.HasPrefix(name, extension) {
			continue
		}
		remedy := "there are " + strings.Join(names, ", ")
		if len(names) > 20 {
			remedy = "docs/configuration.md has all keys"
		}
		if best := nearest.Name(plainKey(name), names); best != "" {
			remedy = "did you mean " + best + "?"
		}
		for _, key := range d.options.Habits[plainKey(name)] {
			if slices.Contains(names, key) {
				remedy = "did you mean " + key + "?"
				break
			}
		}
		d.fault(p.key, path, remedy, "%s is no key here", quote(name))
	}
}

// plainKey is a key as it would be spelt here: max-conns and maxConns are max_conns.
func plainKey(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '-' || r == ' ':
			b.WriteByte('_')
		case 'A' <= r && r <= 'Z':
			if i > 0 && strings.ToUpper(s) != s {
				b.WriteByte('_')
			}
			b.WriteRune(r - 'A' + 'a')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
