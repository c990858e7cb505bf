package config

// Check is the configuration of the command that checks a configuration file.
type Check struct {
	Schema bool `flag:"schema" group:"Advanced" help:"print the JSON schema of the file instead, for editors that complete and check as one types"`
	Files  bool `flag:"files" default:"true" group:"Advanced" help:"look at the tokens and certificates that the file names too; false where these are on another machine"`
	Output
}

// Resolve has nothing to complete.
func (c *Check) Resolve(Environment) error { return nil }
