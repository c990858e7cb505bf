package config

import (
	"encoding/json"
	"reflect"
	"strconv"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"culvert/internal/config/file"
	"culvert/internal/config/plan"
)

// Schema is the JSON schema of the configuration file of a server.
func Schema() *jsonschema.Schema {
	s := file.Schema(reflect.TypeFor[plan.Plan](), plan.Options())
	s.Title = "Configuration of culvert server and culvert lb"
	order := s.PropertyOrder
	s.PropertyOrder = nil
	for _, one := range Describe(new(Server), Mixed).All() {
		if one.Key != "" {
			s.Properties[one.Key] = one.schema()
			s.PropertyOrder = append(s.PropertyOrder, one.Key)
		}
	}
	s.PropertyOrder = append(s.PropertyOrder, order...)
	return s
}

func (s *Setting) schema() *jsonschema.Schema {
	one := s.itemSchema()
	if !s.Repeatable() {
		one.Description, one.Default = s.summary(), s.defaultJSON()
		return one
	}
	return &jsonschema.Schema{
		Description: s.summary(), Default: s.defaultJSON(),
		AnyOf: []*jsonschema.Schema{one, {Type: "array", MinItems: jsonschema.Ptr(1), Items: one.CloneSchemas()}},
	}
}

func (s *Setting) itemSchema() *jsonschema.Schema {
	switch s.target.(type) {
	case *bool:
		return &jsonschema.Schema{Type: "boolean"}
	case *int:
		return &jsonschema.Schema{Type: "integer"}
	case *uint16:
		return &jsonschema.Schema{Type: "integer", Minimum: jsonschema.Ptr(0.0), Maximum: jsonschema.Ptr(65535.0)}
	case *time.Duration:
		return file.DurationSchema()
	}
	if len(s.Values) > 0 {
		words := s.Values
		if s.Blank != "" {
			words = append(words[:len(words):len(words)], "", s.Blank)
		}
		return file.WordSchema(words)
	}
	return &jsonschema.Schema{Types: []string{"string", "number"}}
}

// summary is the setting's help with its unit and what cannot be said as a default.
func (s *Setting) summary() string {
	text := s.Help
	if s.Unit != "" {
		text += " [" + s.Unit + "]"
	}
	if s.Shown != "" {
		text += " (default: " + s.Shown + ")"
	}
	return asKeys(text)
}

func (s *Setting) defaultJSON() json.RawMessage {
	switch s.target.(type) {
	case *bool, *int, *uint16:
		return json.RawMessage(s.Default)
	}
	if s.Default == "" {
		return nil
	}
	return json.RawMessage(strconv.Quote(s.Default))
}
