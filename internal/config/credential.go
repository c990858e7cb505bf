package config

import (
	"errors"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"

	"culvert/internal/auth"
	"culvert/internal/config/file"
	"culvert/internal/pki"
)

// Credential is one secret, given in one of three ways.
type Credential struct {
	// Token is the secret: as given, and after Resolve from wherever it was given.
	Token     auth.Secret `flag:"token" oldshort:"t" oneof:"token" unit:"TOKEN" group:"Security" help:"the secret that server and clients share; others on this machine can see it in the process list"`
	TokenFile string      `flag:"token-file" old:"token-from" oldshort:"f" oneof:"token" file:"token" unit:"FILE" group:"Security" help:"file that holds the token"`
	TokenEnv  string      `flag:"token-env" oneof:"token" unit:"NAME" group:"Security" help:"environment variable that holds the token"`
}

// CredentialGiven says whether any of the three ways is used.
func (c *Credential) CredentialGiven() bool {
	return !c.Token.Empty() || c.TokenFile != "" || c.TokenEnv != ""
}

// resolve reads the token from where it was said to be. Values are not quoted: a person in a hurry writes the token
// itself after --token-env.
func (c *Credential) resolve(env Environment) (found Problems) {
	var used []string
	for _, way := range []struct {
		flag string
		set  bool
	}{{"token", !c.Token.Empty()}, {"token-file", c.TokenFile != ""}, {"token-env", c.TokenEnv != ""}} {
		if way.set {
			used = append(used, "--"+way.flag)
		}
	}
	if len(used) > 1 {
		found.add(used[0][2:], "keep one of them", "the token is given more than once, by %s", strings.Join(used, " and "))
		return found
	}
	switch {
	case c.TokenFile != "":
		secret, err := auth.ReadSecretFile(c.TokenFile)
		if err != nil {
			remedy := ""
			if errors.Is(err, fs.ErrNotExist) {
				remedy = file.CheckPath(c.TokenFile)
			}
			found.add("token-file", remedy, "%s", err)
			return found
		}
		c.Token = secret
	case c.TokenEnv != "":
		value, ok := "", false
		if env.Lookup != nil {
			value, ok = env.Lookup(c.TokenEnv)
		}
		switch {
		case strings.ContainsAny(c.TokenEnv, "= \t") || !file.Printable(c.TokenEnv):
			found.add("token-env", "give the name of a variable, not the token", "not the name of an environment variable")
		case !ok:
			found.add("token-env", "export it, or give the name of another", "the variable that it names is not set")
		case value == "":
			found.add("token-env", "", "the variable that it names is empty")
		default:
			c.Token = auth.NewSecret(value)
		}
	}
	found = append(found, c.check()...)
	return found
}

// masked says whether the token is what a printed configuration has in its place.
func (c *Credential) masked() bool { return c.Token.Equal(auth.NewSecret(mask)) }

// check looks at the token itself.
func (c *Credential) check() (found Problems) {
	if c.masked() {
		found.add(c.flag(), maskRemedy, maskFault)
		return found
	}
	// Some editors put a byte order mark first, which nobody sees and the other end lacks.
	invisible := func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }
	if token := c.Token.Reveal(); !utf8.ValidString(token) || strings.ContainsFunc(token, invisible) {
		found.add(c.flag(), "a token is one line of visible characters", "the token holds a space or an invisible character")
	}
	return found
}

// checkBootstrap refuses a token that is too short to prove anything with.
func (c *Credential) checkBootstrap() (found Problems) {
	if n := len(c.Token.Reveal()); n > 0 && n < pki.MinToken && !c.masked() { // of which check has told
		found.add(c.flag(), "make one with: openssl rand -hex 20",
			"the token has %d characters; auto-TLS needs %d or more, because a shorter one can be guessed", n, pki.MinToken)
	}
	return found
}

// flag is the flag that the token came by.
func (c *Credential) flag() string {
	switch {
	case c.TokenFile != "":
		return "token-file"
	case c.TokenEnv != "":
		return "token-env"
	}
	return "token"
}
