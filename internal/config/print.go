package config

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"culvert/internal/auth"
	"culvert/internal/config/file"
	"culvert/internal/config/plan"
)

// mask is what stands in the place of a secret. A server refuses it; CheckFile, for which a printed configuration is right, warns.
const (
	mask       = "***"
	maskFault  = "is the mask of a printed configuration, and no token"
	maskRemedy = "put the token in its place, or --token-file FILE"
)

// Print writes the configuration as a file, without settings that have no effect. The settings are those of s. Secrets are
// masked: that and the comments that say where a value comes from are all that would be lost if the file were used.
func (s *Server) Print(settings *Settings) (string, error) {
	top := &yaml.Node{Kind: yaml.MappingNode}
	for _, one := range settings.all {
		if one.Needs == "control" && !s.HasControl() {
			continue
		}
		if n := one.node(); n != nil && one.Key != "" {
			key := &yaml.Node{Kind: yaml.ScalarNode, Value: one.Key}
			top.Content = append(top.Content, key, n)
		}
	}
	top.Content = append(top.Content, file.Encode(s.Plan, plan.Options()).Content...)
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(top); err != nil {
		return "", err
	}
	return b.String(), enc.Close()
}

// node is the setting's value as a file has it; nil for one that has none.
func (s *Setting) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode}
	switch s.source {
	case FromFlag:
		n.LineComment = "--" + s.Flag
	case FromEnvironment:
		n.LineComment = s.from
	}
	if s.Secret() {
		if len(s.given) == 0 {
			return nil
		}
		n.SetString(mask)
		return n
	}
	v := reflect.ValueOf(s.target).Elem()
	switch {
	case v.Kind() == reflect.Slice:
		if v.Len() == 0 {
			return nil
		}
		n.Kind, n.Style = yaml.SequenceNode, yaml.FlowStyle
		for i := range v.Len() {
			item := &yaml.Node{}
			item.SetString(file.Format(v.Index(i).Interface()))
			n.Content = append(n.Content, item)
		}
	case v.Kind() == reflect.Bool, v.CanInt() && s.Unit != "DURATION", v.CanUint():
		n.Value = file.Format(v.Interface())
	case v.IsZero() && s.Default == "":
		return nil
	default:
		comment := n.LineComment
		n.SetString(s.text())
		n.LineComment = comment
	}
	return n
}

// text is the setting's value as typed.
func (s *Setting) text() string {
	switch t := s.target.(type) {
	case *auth.Ports:
		return t.String()
	case *LogLevel:
		return t.String()
	}
	return file.Format(reflect.ValueOf(s.target).Elem().Interface())
}
