package file

import "go.yaml.in/yaml/v3"

// Value is the value of a key that is not of the struct: one text, or those of a list; of a mapping "KEY=VALUE" for each.
type Value struct {
	Texts []string
	// Kind says how it is written.
	Kind Kind
	// Fault is the place of the value, for whoever finds something wrong with it.
	Fault Fault
}

// Kind says how a value is written.
type Kind uint8

// The kinds.
const (
	One     Kind = iota // a value by itself
	Several             // a list
	Pairs               // keys and values
)

// take hands a value to whom its key belongs.
func (d *decoder) take(key string, n *yaml.Node) {
	n, ok := d.enter(n, key)
	if !ok {
		return
	}
	v := Value{Fault: d.doc.Fault(key, "", "")}
	switch {
	case isNull(n):
		d.fault(n, key, "write one, or leave the key out", "has no value")
		return
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		d.fault(n, key, "put something in, or leave the key out", "is an empty list")
		return
	case n.Kind == yaml.ScalarNode:
		v.Texts = []string{n.Value}
	case n.Kind == yaml.MappingNode:
		v.Kind = Pairs
		for i := 0; i+1 < len(n.Content); i += 2 {
			value, ok := d.single(n.Content[i+1], key)
			if !ok {
				return
			}
			v.Texts = append(v.Texts, n.Content[i].Value+"="+value)
		}
	default:
		v.Kind = Several
		for _, c := range n.Content {
			value, ok := d.single(c, key)
			if !ok {
				return
			}
			v.Texts = append(v.Texts, value)
		}
	}
	d.options.Take(key, v)
}

// single is the text of a node within a value of many.
func (d *decoder) single(n *yaml.Node, path string) (string, bool) {
	at := n
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.values++
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.fault(at, path, "write one value", "has an item that is %s where one value belongs", kindOf(n))
		return "", false
	}
	return n.Value, true
}
