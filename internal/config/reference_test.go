package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/config/file"
	"culvert/internal/config/plan"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing")

// The part of this page below the mark is made of the tags, so that it has every key with its default.
const (
	referencePage = "../../docs/configuration.md"
	referenceMark = "<!-- go test ./internal/config -update writes what follows -->\n"
)

func TestReferenceHasEveryKey(t *testing.T) {
	page, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	head, tail, ok := strings.Cut(string(page), referenceMark)
	if !ok {
		t.Fatalf("%s has no %q", referencePage, referenceMark)
	}
	var b strings.Builder
	section(&b, "", "Top level", reflect.TypeFor[plan.Plan]())
	b.WriteString("\n### Settings\n\nThe flags of `culvert server`, at the top level.\n\n| key | value | default | what it is |\n|---|---|---|---|\n")
	for _, one := range Describe(new(Server), Mixed).All() {
		if one.Key != "" {
			row(&b, one.Key, valueKind(one), one.Values, fallback(false, one.Shown, one.Default), asKeys(one.Help))
		}
	}
	if *update {
		if err := os.WriteFile(referencePage, []byte(head+referenceMark+b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(b.String(), tail); diff != "" {
		t.Errorf("%s: want -, got + (go test ./internal/config -update writes it)\n%s", referencePage, diff)
	}
}

// section writes the table of a struct's keys, and then those of the structs within.
func section(b *strings.Builder, path, title string, t reflect.Type) {
	type below struct {
		path string
		typ  reflect.Type
	}
	var inner []below
	fmt.Fprintf(b, "\n### %s\n\n| key | value | default | what it is |\n|---|---|---|---|\n", title)
	for _, f := range file.Fields(t) {
		typ, multiple := f.Type, f.Type.Kind() == reflect.Slice
		if typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		help := f.Help
		if len(f.Only) > 0 {
			help += "; of " + strings.Join(f.Only, " and ") + " only"
		}
		scalar := len(file.Fields(nonStruct(typ))) == 0
		if !scalar {
			next := file.Join(path, f.Key)
			if multiple {
				next += "[]"
			}
			inner = append(inner, below{next, typ})
		} else if multiple {
			help += "; one or a list"
		}
		unit := f.Unit
		if typ.Kind() == reflect.Bool {
			unit = "`true`, `false`"
		}
		row(b, f.Key, unit, append(f.Values, f.Words...), fallback(f.Required, f.Shown, f.Default), help)
	}
	for _, i := range inner {
		section(b, i.path, "`"+i.path+"`", i.typ)
	}
}

// valueKind is the unit of a setting, or what a switch takes.
func valueKind(s *Setting) string {
	if s.Bool() {
		return "`true`, `false`"
	}
	return s.Unit
}

// nonStruct is the type if it may have keys, else a struct without any.
func nonStruct(t reflect.Type) reflect.Type {
	if t.Kind() != reflect.Struct {
		return reflect.TypeFor[struct{}]()
	}
	return t
}

func row(b *strings.Builder, key, unit string, values []string, fallback, help string) {
	if len(values) > 0 {
		unit = "`" + strings.Join(values, "`, `") + "`"
	}
	fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", key, unit, fallback, strings.ReplaceAll(help, "|", `\|`))
}

// fallback is the default as it is told, or that there is none.
func fallback(required bool, shown, value string) string {
	switch {
	case required:
		return "**required**"
	case shown != "":
		return asKeys(shown)
	case value != "":
		return "`" + value + "`"
	}
	return ""
}
