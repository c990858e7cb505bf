package cli

import (
	"fmt"

	"culvert/internal/cli/generate"
)

func (t tree) options(words []string) generate.Options {
	return generate.Options{Words: words, Dir: t.deps.Dir, Version: t.deps.Build.Version}
}

// printGenerated prints a unit or manifests, and on standard error what is left to do by hand, so that standard output
// can go into a file.
func (t tree) printGenerated(result generate.Result, err error) error {
	if err != nil {
		return usage{err}
	}
	if _, err := fmt.Fprint(t.deps.Stdout, result.Text); err != nil {
		return err
	}
	for _, note := range result.Notes {
		fmt.Fprintln(t.deps.Stderr, note)
	}
	return nil
}
