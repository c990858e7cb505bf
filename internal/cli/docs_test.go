package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every command line of the documentation and the examples runs as it stands there.
func TestTheCommandLinesOfTheDocumentationRun(t *testing.T) {
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for name, text := range documentation(t) {
		whole, parts := commandLines(text)
		total += len(whole) + len(parts)
		t.Run(name, func(t *testing.T) {
			for _, line := range whole {
				w := newExampleWorld(t)
				if err := os.CopyFS(".", os.DirFS(examples)); err != nil {
					t.Fatal(err)
				}
				w.runs(t, line)
			}
			w := newWorld(t)
			for _, line := range parts {
				if code := w.run(t, strings.TrimPrefix(line, "culvert ")+" --help"); code != 0 {
					t.Errorf("%s: code %d\n%s", line, code, &w.stderr)
				}
			}
		})
	}
	if total < 100 {
		t.Errorf("%d command lines were found: the pages are written otherwise than this test reads them", total)
	}
}

// documentation is all pages by name, but for that of the help itself, which has its own test, and that of what was.
func documentation(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../examples/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			pages[strings.TrimPrefix(path, "../../")] = string(text)
		}
	}
	delete(pages, "docs/command-line.md")
	delete(pages, "CHANGELOG.md")
	return pages
}

var (
	inCode     = regexp.MustCompile("`(culvert [a-z][^`]*)`")
	blockLine  = regexp.MustCompile(`^(?:    |#     |)(?:sudo )?(culvert .*)$`)
	annotation = regexp.MustCompile(`\s+#\s.*$`)
)

// commandLines are those of a page: whole ones, which stand in blocks, and parts of them, which stand in the text or end in "…".
func commandLines(page string) (whole, parts []string) {
	page = strings.ReplaceAll(page, "\\\n#", "\\\n")
	page = strings.ReplaceAll(page, "\\\n", " ")
	for line := range strings.Lines(page) {
		if m := blockLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil && !strings.HasPrefix(line, "culvert is") {
			line = annotation.ReplaceAllString(m[1], "")
			if before, _, cut := strings.Cut(line, " …"); cut {
				parts = append(parts, before)
			} else {
				whole = append(whole, line)
			}
			continue
		}
		for _, m := range inCode.FindAllStringSubmatch(line, -1) {
			part, _, _ := strings.Cut(strings.ReplaceAll(m[1], `\|`, "|"), " …")
			parts = append(parts, part)
		}
	}
	return whole, parts
}
