package config

import (
	"time"

	"culvert/internal/auth"
	"culvert/internal/hostname"
)

// TokenFile is the file that the token commands work on.
type TokenFile struct {
	Tokens string `flag:"tokens" unit:"FILE" group:"Connection" help:"token file, as of a server's --tokens"`
}

func (t TokenFile) check() (found Problems) {
	if t.Tokens == "" {
		found.add("tokens", "give --tokens FILE, the file of a server's --tokens", "the token file is missing")
	}
	return found
}

// TokenNew is the configuration of the command that makes a token: its file, its name and its grant.
type TokenNew struct {
	TokenFile
	Name       string        `flag:"name" unit:"NAME" group:"Connection" help:"whose token it is, for people"`
	Expires    time.Duration `flag:"expires" shown:"never" unit:"DURATION" group:"Security" help:"how long it is valid: 12h, 90d"`
	Hosts      []string      `flag:"hosts" unit:"HOST" group:"Security" help:"hosts that it may offer: app.example.com, *.dev.example.com; repeatable"`
	Ports      auth.Ports    `flag:"ports" unit:"PORTS" group:"Security" help:"TCP and UDP ports that it may offer: 2222,8000-8100; repeatable"`
	Names      []string      `flag:"names" unit:"NAME" group:"Security" help:"private tunnels that it may offer: db, team-*; repeatable"`
	Visit      []string      `flag:"visit" unit:"NAME" group:"Security" help:"private tunnels that it may visit: db, team-*; repeatable"`
	Forward    []string      `flag:"forward" unit:"HOST:PORT" group:"Security" help:"services of the server's network that it may reach: 10.0.0.0/8:5432; repeatable"`
	Divert     []string      `flag:"divert" unit:"NAME" group:"Security" help:"entrypoints whose live traffic it may divert: devices, dev-*; repeatable"`
	Read       bool          `flag:"read" group:"Security" help:"may read status and metrics: culvert status, explain, member list, divert list"`
	Administer bool          `flag:"admin" group:"Security" help:"may administer the server: culvert reload, drain, member, divert end"`
	Everything bool          `flag:"everything" group:"Security" help:"may do all of this"`
	Output
}

// Resolve checks the grant. The error is Problems.
func (t *TokenNew) Resolve(Environment) error {
	found := t.check()
	some := len(t.Hosts)+len(t.Names)+len(t.Visit)+len(t.Forward)+len(t.Divert) > 0 || !t.Ports.IsZero() || t.Read || t.Administer
	switch {
	case !word(t.Name):
		found.add("name", "give --name NAME of letters, digits, '.', '-' and '_'", "a token needs a name to tell it by")
	case !some && !t.Everything:
		found.add("hosts", "give --hosts, --ports, --read and so on, or --everything", "the token may do nothing")
	case some && t.Everything:
		found.add("everything", "leave one of the two out", "contradicts the narrower grant")
	}
	for _, host := range t.Hosts {
		if _, err := hostname.ParsePattern(host); err != nil {
			found.add("hosts", "", "%s", err)
		}
	}
	for _, part := range []struct {
		flag  string
		grant auth.Grant
	}{
		{"names", auth.Grant{Names: t.Names}},
		{"visit", auth.Grant{Visit: t.Visit}},
		{"forward", auth.Grant{Forward: t.Forward}},
		{"divert", auth.Grant{Divert: t.Divert}},
	} {
		if err := part.grant.Validate(); err != nil {
			found.add(part.flag, "", "%s", err)
		}
	}
	return found.Err()
}

// Grant is what the token may do. It is right after a Resolve without error.
func (t *TokenNew) Grant() auth.Grant {
	if t.Everything {
		return auth.Everything()
	}
	g := auth.Grant{
		Ports: t.Ports, Names: t.Names, Visit: t.Visit, Forward: t.Forward, Divert: t.Divert, Read: t.Read, Administer: t.Administer,
	}
	for _, host := range t.Hosts {
		if p, err := hostname.ParsePattern(host); err == nil {
			g.Hosts = append(g.Hosts, p)
		}
	}
	return g
}

// TokenList is the configuration of the command that lists tokens.
type TokenList struct {
	TokenFile
	Output
}

// Resolve checks that there is a file. The error is Problems.
func (t *TokenList) Resolve(Environment) error { return t.check().Err() }

// TokenRevoke is the configuration of the command that revokes a token, which it takes as an argument.
type TokenRevoke struct {
	TokenFile
}

// Resolve checks that there is a file. The error is Problems.
func (t *TokenRevoke) Resolve(Environment) error { return t.check().Err() }
