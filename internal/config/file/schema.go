package file

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// Schema is the JSON schema of files that Decode reads into a struct of type t, from the same tags, for editors. It knows
// all keys, kinds, bounds and values, but not what the values mean to each other.
func Schema(t reflect.Type, o Options) *jsonschema.Schema {
	s := o.mappingSchema(t)
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.PatternProperties = map[string]*jsonschema.Schema{"^" + extension: {Description: "for the file's own use, to put anchors into"}}
	return s
}

func (o Options) mappingSchema(t reflect.Type) *jsonschema.Schema {
	s := &jsonschema.Schema{
		Type: "object", Properties: map[string]*jsonschema.Schema{},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
	}
	for _, f := range Fields(t) {
		p := o.fieldSchema(f)
		p.Description = f.Summary()
		s.Properties[f.Key] = p
		s.PropertyOrder = append(s.PropertyOrder, f.Key)
		if f.Required {
			s.Required = append(s.Required, f.Key)
		}
	}
	return s
}

// Summary is the field's help with unit, default and to what it belongs, in one sentence.
func (f Field) Summary() string {
	text := f.Help
	if f.Unit != "" {
		text += " [" + f.Unit + "]"
	}
	if f.Shown != "" {
		text += " (default: " + f.Shown + ")"
	}
	if len(f.Only) > 0 {
		text += " (" + OneOf(f.Only) + " only)"
	}
	return text
}

func (o Options) fieldSchema(f Field) *jsonschema.Schema {
	t := f.Type
	if t.Kind() == reflect.Pointer {
		s := o.mappingSchema(t.Elem())
		s.Type, s.Types = "", []string{"object", "null"}
		return s
	}
	switch {
	case o.isScalar(t):
		return o.scalarSchema(t, f)
	case t.Kind() == reflect.Slice:
		one := 1
		item := t.Elem()
		if !o.isScalar(item) {
			return &jsonschema.Schema{Type: "array", MinItems: &one, Items: o.mappingSchema(item)}
		}
		s := o.scalarSchema(item, f)
		s.Default = nil
		list := &jsonschema.Schema{Type: "array", MinItems: &one, Items: s}
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{s.CloneSchemas(), list}, Default: defaultJSON(f.Default, false)}
	case len(f.Words) > 0:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{WordSchema(f.Words), o.mappingSchema(t)}}
	}
	return o.mappingSchema(t)
}

// scalarSchema is the schema of one value. Texts may be written as numbers where they look like one, as in YAML they do.
func (o Options) scalarSchema(t reflect.Type, f Field) *jsonschema.Schema {
	switch {
	case len(f.Values) > 0:
		return withDefault(WordSchema(f.Values), f.Default)
	case t == typeDuration:
		return withDefault(DurationSchema(), f.Default)
	case o.scalar(t) != nil:
		return withDefault(&jsonschema.Schema{Types: []string{"string", "number"}}, f.Default)
	}
	s := &jsonschema.Schema{}
	switch t.Kind() {
	case reflect.Bool:
		s.Type, s.Default = "boolean", defaultJSON(f.Default, true)
	case reflect.Int, reflect.Uint16, reflect.Float64:
		s.Type, s.Default = "integer", defaultJSON(f.Default, true)
		if t.Kind() == reflect.Float64 {
			s.Type = "number"
		}
		s.Minimum, s.Maximum, s.ExclusiveMinimum = limit(f.min), limit(f.max), limit(f.above)
		if t.Kind() == reflect.Uint16 {
			s.Minimum, s.Maximum = limit("1"), limit("65535")
		}
	case reflect.String:
		s.Types, s.Default = []string{"string", "number", "boolean"}, defaultJSON(f.Default, false)
	default:
		s.Type = "string" // a prefix
	}
	return s
}

// durationPattern is what ParseDuration reads.
const durationPattern = `^(\+?0|[0-9]+d|\+?([0-9]*\.?[0-9]+|[0-9]+\.)(ns|us|µs|μs|ms|s|m|h)(([0-9]*\.?[0-9]+|[0-9]+\.)(ns|us|µs|μs|ms|s|m|h))*)$`

// DurationSchema is the schema of what ParseDuration reads.
func DurationSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Types: []string{"string", "integer"}, Pattern: durationPattern, Maximum: new(float64)} // the integer 0
}

func limit(text string) *float64 {
	if text == "" {
		return nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(fmt.Sprintf("a bound of a key of the file: %s", err))
	}
	return &n
}

// WordSchema is the schema of one of these words.
func WordSchema(words []string) *jsonschema.Schema {
	all := make([]any, len(words))
	for i, w := range words {
		all[i] = w
	}
	return &jsonschema.Schema{Type: "string", Enum: all}
}

// withDefault is a schema of text with its default.
func withDefault(s *jsonschema.Schema, text string) *jsonschema.Schema {
	s.Default = defaultJSON(text, false)
	return s
}

// defaultJSON is a default as JSON has it.
func defaultJSON(text string, literal bool) json.RawMessage {
	switch {
	case text == "":
		return nil
	case literal:
		return json.RawMessage(text)
	}
	return json.RawMessage(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`)
}
