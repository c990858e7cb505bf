package config

import "time"

// Demo is the configuration of the demo.
type Demo struct {
	For time.Duration `flag:"for" shown:"until Ctrl-C" unit:"DURATION" group:"Advanced" help:"end after this time, with a summary"`
	Output
	Log
}

// Resolve has nothing to find wrong.
func (d *Demo) Resolve(Environment) error { return nil }
