package file

import (
	"reflect"

	"go.yaml.in/yaml/v3"
)

// Encode writes the struct that v is as Decode reads it: what has another value than the zero one or another than its
// default. Everything that counts is there, defaults too, so that a reader needs no reference.
func Encode(v any, o Options) *yaml.Node {
	return o.node(reflect.ValueOf(v), Field{})
}

func (o Options) node(v reflect.Value, f Field) *yaml.Node {
	switch {
	case v.Kind() == reflect.Pointer:
		return o.node(v.Elem(), f)
	case o.isScalar(v.Type()):
		return scalarNode(v)
	case v.Kind() == reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if o.isScalar(v.Type().Elem()) {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			n.Content = append(n.Content, o.node(v.Index(i), f))
		}
		return n
	}
	if len(f.Words) > 0 {
		if word := addressable(v).Interface().(Shorthand).Word(); word != "" {
			return scalarNode(reflect.ValueOf(word))
		}
	}
	return o.mapping(v)
}

// mapping writes a struct. One of nothing but plain values is written on one line.
func (o Options) mapping(v reflect.Value) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	fields, selected := Fields(v.Type()), ""
	if f, ok := selector(fields); ok {
		selected = v.FieldByIndex(f.index).String()
	}
	for _, f := range fields {
		value := v.FieldByIndex(f.index)
		if !f.applies(selected) || value.IsZero() && !f.Required && !o.counts(f) {
			continue
		}
		child := o.node(value, f)
		if child.Kind == yaml.MappingNode && len(child.Content) == 0 && value.Kind() != reflect.Pointer {
			continue
		}
		if child.Kind == yaml.MappingNode || child.Kind == yaml.SequenceNode && child.Style != yaml.FlowStyle {
			n.Style = 0
		}
		n.Content = append(n.Content, scalarNode(reflect.ValueOf(f.Key)), child)
	}
	return n
}

// counts says whether the zero value of a field is another than its default.
func (o Options) counts(f Field) bool {
	if f.Default == "" || !o.isScalar(f.Type) {
		return false
	}
	v := reflect.New(f.Type).Elem()
	if err := o.parse(v, f, f.Default); err != nil {
		panic("key " + f.Key + " of the file: default: " + err.Error())
	}
	return !v.IsZero()
}

func scalarNode(v reflect.Value) *yaml.Node {
	n := &yaml.Node{}
	switch v.Kind() {
	case reflect.Bool, reflect.Int, reflect.Uint16, reflect.Float64:
		n.Kind, n.Value = yaml.ScalarNode, Format(v.Interface())
	default:
		n.SetString(Format(v.Interface())) // quotes what YAML would take for something else
	}
	return n
}

// addressable is a pointer to a copy of v, for methods of the pointer.
func addressable(v reflect.Value) reflect.Value {
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p
}
