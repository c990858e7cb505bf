package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"culvert/internal/auth"
	"culvert/internal/config/file"
)

// Setting is one setting of a command, as the tags of a field describe it:
//
//	flag:"control-port"  the flag; a field without it is no setting
//	short:"c"            its letter
//	alias:"port"         a second flag for the same setting
//	old:"token-from"     a flag of other tunnels, accepted with a deprecation line
//	oldshort:"u"         a letter of other tunnels, likewise
//	default:"8123"       the default, as typed
//	shown:"a folder"     the default as help shows it, where it is found out at run time
//	unit:"PORT"          what the value is, for help
//	values:"text json"   all the values there are
//	blank:"off"          an empty value is a value too, the field's zero; the word says what it means, for help
//	group:"Connection"   the heading in help
//	help:"…"             one line, lower case
//	modes:"http mixed"   the modes that have it; all, if left out
//	oneof:"token"        settings of one word are alternatives: a flag hides the environment of all of them
//	needs:"control"      it has no effect without a control port
//	file:"token"         its value is the path of a file that the program reads; the word names it in a unit
//	key:"-"              it is no key of the configuration file; all others are, spelt as in "control_port"
type Setting struct {
	Flag, Short, Alias, Old, OldShort string
	Default, Shown, Unit, Group, Help string
	Values                            []string
	OneOf, File, Blank, Needs         string
	// Key is the setting's key in the configuration file; "" if it has none there.
	Key string

	target  any
	source  Source
	from    string     // the environment variable that set it
	place   file.Fault // where it stands in the configuration file that set it
	given   []string
	problem error
}

// Source says where a setting's value comes from.
type Source uint8

// The sources, weakest first.
const (
	FromDefault Source = iota
	FromFile
	FromEnvironment
	FromFlag
)

// Settings are the settings of one command over the configuration that they fill.
type Settings struct {
	all []*Setting
}

// Describe reads the tags of the struct that cfg points to, embedded structs included, and sets every field to its default.
// A setting that the mode does not have stays at its zero value. Wrong tags are mistakes of this program, and panic.
func Describe(cfg any, mode Mode) *Settings {
	s := &Settings{}
	s.walk(reflect.ValueOf(cfg).Elem(), mode)
	return s
}

func (s *Settings) walk(v reflect.Value, mode Mode) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		flag, tagged := field.Tag.Lookup("flag")
		switch {
		case field.Anonymous:
			s.walk(v.Field(i), mode)
		case tagged && hasMode(field.Tag.Get("modes"), mode):
			s.all = append(s.all, describe(flag, field.Tag, v.Field(i).Addr().Interface()))
		}
	}
}

func hasMode(modes string, mode Mode) bool {
	return modes == "" || slices.Contains(strings.Fields(modes), string(mode))
}

func describe(flag string, tag reflect.StructTag, target any) *Setting {
	s := &Setting{
		Flag: flag, Short: tag.Get("short"), Alias: tag.Get("alias"), Old: tag.Get("old"), OldShort: tag.Get("oldshort"),
		Default: tag.Get("default"), Shown: tag.Get("shown"), Unit: tag.Get("unit"), Group: tag.Get("group"),
		Help: tag.Get("help"), Values: strings.Fields(tag.Get("values")), OneOf: tag.Get("oneof"), File: tag.Get("file"),
		Blank: tag.Get("blank"), Needs: tag.Get("needs"),
		target: target,
	}
	if tag.Get("key") != "-" {
		s.Key = strings.ReplaceAll(flag, "-", "_")
	}
	if s.Group == "" || s.Help == "" {
		panic("setting " + flag + ": no group or no help")
	}
	if s.Default != "" {
		if err := parse(target, s.Default, true); err != nil {
			panic(fmt.Sprintf("setting %s: default: %s", flag, err))
		}
	}
	return s
}

// All are the settings in the order of their fields.
func (s *Settings) All() []*Setting { return s.all }

// Lookup finds a setting by its flag or alias; nil if there is none.
func (s *Settings) Lookup(flag string) *Setting {
	for _, one := range s.all {
		if flag == one.Flag || flag == one.Alias && flag != "" {
			return one
		}
	}
	return nil
}

// Bool says whether the setting is a switch.
func (s *Setting) Bool() bool { _, ok := s.target.(*bool); return ok }

// Secret says whether the value must not be shown.
func (s *Setting) Secret() bool { _, ok := s.target.(*auth.Secret); return ok }

// Repeatable says whether the setting may be given several times, or as a comma list.
func (s *Setting) Repeatable() bool { return repeatable(s.target) }

// Source says where the value comes from.
func (s *Setting) Source() Source { return s.source }

// Given is what was typed, in order; nil if the value is the default. It is the secret itself if the setting is one.
func (s *Setting) Given() []string { return s.given }

// Set takes what a flag says. What is wrong with it is told by Check, together with all else.
func (s *Setting) Set(raw string) { s.set(FromFlag, raw) }

func (s *Setting) set(source Source, raw string) {
	fresh := s.source != source
	if fresh {
		s.source, s.given, s.problem = source, nil, nil
	}
	s.given = append(s.given, raw)
	if s.problem != nil {
		return
	}
	if raw == "" && s.Blank != "" {
		reflect.ValueOf(s.target).Elem().SetZero()
		return
	}
	if len(s.Values) > 0 && !slices.Contains(s.Values, raw) {
		s.problem = fmt.Errorf("%q is unknown; use %s", shorten(raw), file.OneOf(s.words()))
		return
	}
	s.problem = parse(s.target, raw, fresh)
}

// ReadEnvironment takes what no flag has set from the environment: the variable of --control-port is PREFIX_CONTROL_PORT.
// An empty variable counts as not set, except for a secret: there it is a mistake that must not go unnoticed.
func (s *Settings) ReadEnvironment(prefix string, env Environment) {
	taken := s.taken(FromFlag)
	for _, one := range s.all {
		if one.source == FromFlag || slices.Contains(taken, one.OneOf) {
			continue
		}
		name := Variable(prefix, one.Flag)
		value, ok := env.Lookup(name)
		if ok && (value != "" || one.Secret()) {
			one.from = name
			one.set(FromEnvironment, value)
		}
	}
}

// taken are the groups of alternatives of which one was set by a source at least this strong.
func (s *Settings) taken(least Source) []string {
	var taken []string
	for _, one := range s.all {
		if one.source >= least && one.OneOf != "" {
			taken = append(taken, one.OneOf)
		}
	}
	return taken
}

// Variable is the environment variable of a flag.
func Variable(prefix, flag string) string {
	return prefix + "_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Check joins what is wrong with the values as typed and what Resolve found, and names each by where its value came from.
// A value that could not be read is told once: what Resolve finds for the same setting follows from it.
func (s *Settings) Check(resolved error) error {
	var all, found Problems
	if resolved != nil && !errors.As(resolved, &found) {
		return resolved
	}
	for _, one := range s.all {
		if one.problem != nil {
			fault, remedy, _ := strings.Cut(one.problem.Error(), "; ")
			all = append(all, Problem{Flag: one.Flag, Fault: fault, Remedy: remedy, variable: one.variable(), place: one.inFile()})
			continue
		}
		for _, p := range found {
			if p.Flag == one.Flag {
				p.variable, p.place = one.variable(), one.inFile()
				all = append(all, p)
			}
		}
	}
	for _, p := range found {
		if s.Lookup(p.Flag) == nil {
			all = append(all, p)
		}
	}
	all.sort()
	return all.Err()
}

// words are the values there are, as typed in a shell.
func (s *Setting) words() []string {
	if s.Blank == "" {
		return s.Values
	}
	return append(slices.Clip(s.Values), fmt.Sprintf("%q for %s", "", s.Blank))
}

func (s *Setting) variable() string {
	if s.source == FromEnvironment {
		return s.from
	}
	return ""
}

func (s *Setting) inFile() file.Fault {
	if s.source == FromFile {
		return s.place
	}
	return file.Fault{}
}
