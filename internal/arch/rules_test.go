package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// A rule finds what the house does not do and no linter at hand can see.
type rule struct {
	name string
	// bad is a file that breaks the rule and good one that keeps it: a rule that catches nothing is no rule.
	bad, good string
	// skip says which files the rule leaves alone.
	skip func(path string, f *ast.File) bool
	// breaks says what is wrong with a node, "" if nothing is.
	breaks func(n ast.Node) string
}

func rules() []rule {
	return []rule{
		{
			name: "reading all has a limit",
			bad:  `func f() { io.ReadAll(r) }`,
			good: `func f() { io.ReadAll(io.LimitReader(r, 10)); io.ReadAll(http.MaxBytesReader(w, r, 10)) }`,
			skip: func(path string, _ *ast.File) bool { return isTest(path) },
			breaks: func(n ast.Node) string {
				call, ok := n.(*ast.CallExpr)
				if !ok || !isCallTo(call, "io", "ReadAll") {
					return ""
				}
				if len(call.Args) == 1 && (isCallTo(call.Args[0], "io", "LimitReader") || isCallTo(call.Args[0], "http", "MaxBytesReader")) {
					return ""
				}
				return "io.ReadAll without a limit: give it io.LimitReader(…), so that a stranger cannot fill the memory"
			},
		},
		{
			name: "secrets are compared in constant time",
			bad:  `func f() bool { return a.Reveal() == b }`,
			good: `func f() bool { return a.Empty() || subtle.ConstantTimeCompare(x, y) == 1 }`,
			skip: func(path string, _ *ast.File) bool { return isTest(path) },
			breaks: func(n ast.Node) string {
				b, ok := n.(*ast.BinaryExpr)
				if !ok || b.Op != token.EQL && b.Op != token.NEQ || !isReveal(b.X) && !isReveal(b.Y) {
					return ""
				}
				return "a secret compared with " + b.Op.String() + ": compare digests with crypto/subtle, or ask Empty"
			},
		},
		{
			name: "nothing sleeps",
			bad:  `func f() { time.Sleep(time.Second) }`,
			good: `import "testing/synctest"; func f() { synctest.Test(t, func(t *testing.T) { time.Sleep(time.Second) }) }`,
			skip: func(_ string, f *ast.File) bool { // a bubble's clock is not the wall's
				for _, i := range f.Imports {
					if i.Path.Value == `"testing/synctest"` {
						return true
					}
				}
				return false
			},
			breaks: func(n ast.Node) string {
				if call, ok := n.(*ast.CallExpr); ok && isCallTo(call, "time", "Sleep") {
					return "time.Sleep: wait for the event, bounded by a context or a deadline"
				}
				return ""
			},
		},
	}
}

func isTest(path string) bool { return strings.HasSuffix(path, "_test.go") }

func isCallTo(e ast.Expr, pkg, name string) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == pkg
}

func isReveal(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Reveal"
}

// check lists where a file breaks a rule.
func check(r rule, fset *token.FileSet, path string, f *ast.File) []string {
	if r.skip(path, f) {
		return nil
	}
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		if n != nil {
			if what := r.breaks(n); what != "" {
				found = append(found, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), what))
			}
		}
		return true
	})
	return found
}

func TestRulesOfTheHouse(t *testing.T) {
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
				switch {
				case err != nil:
					return err
				case d.IsDir() && (d.Name() == "bin" || d.Name() == "dist" || d.Name() == ".git"):
					return filepath.SkipDir
				case d.IsDir() || filepath.Ext(path) != ".go":
					return nil
				}
				fset := token.NewFileSet()
				f, err := parser.ParseFile(fset, path, nil, 0)
				if err != nil {
					return err
				}
				for _, what := range check(r, fset, path, f) {
					t.Error(what)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestRulesCatchWhatTheyForbid(t *testing.T) {
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			for source, want := range map[string]int{r.bad: 1, r.good: 0} {
				fset := token.NewFileSet()
				f, err := parser.ParseFile(fset, "x.go", "package x\n"+source, 0)
				if err != nil {
					t.Fatal(err)
				}
				if got := check(r, fset, "x.go", f); len(got) != want {
					t.Errorf("%s: got %q, want %d", source, got, want)
				}
			}
		})
	}
}
