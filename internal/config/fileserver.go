package config

import (
	"net/netip"
	"strings"

	"culvert/internal/auth"
)

// Fileserver is the configuration of the file server.
type Fileserver struct {
	Webroot       string         `flag:"webroot" short:"w" default:"." unit:"FOLDER" group:"Data plane" help:"folder to serve"`
	AllowBrowsing bool           `flag:"allow-browsing" short:"a" group:"Data plane" help:"list the content of folders that have no index.html"`
	Hidden        bool           `flag:"hidden" group:"Data plane" help:"serve files and folders whose names begin with a dot"`
	DataAddr      string         `flag:"data-addr" default:"127.0.0.1" unit:"ADDRESS" group:"Connection" help:"address that visitors connect to"`
	Port          uint16         `flag:"port" short:"p" default:"8080" unit:"PORT" group:"Connection" help:"port that visitors connect to"`
	AllowIPs      []netip.Prefix `flag:"allow-ips" shown:"everyone" unit:"CIDR" group:"Security" help:"addresses that may connect; repeatable"`
	BasicAuth
	Log
	Generator
}

// BasicAuth is a name and a password that visitors must give; everyone is let in if there is no password.
type BasicAuth struct {
	BasicAuthUsername string `flag:"basic-auth-username" default:"admin" unit:"NAME" group:"Security" help:"name that visitors must give, if there is a password"`
	// BasicAuthPassword is the password: as given, and after Resolve from wherever it was given.
	BasicAuthPassword     auth.Secret `flag:"basic-auth-password" oneof:"password" unit:"PASSWORD" group:"Security" help:"password that visitors must give; others on this machine can see it in the process list"`
	BasicAuthPasswordFile string      `flag:"basic-auth-password-file" oneof:"password" file:"password" unit:"FILE" group:"Security" help:"file that holds that password"`
}

const defaultUsername = "admin" // as in the tag

// Resolve reads the password and checks everything. The error is Problems.
func (f *Fileserver) Resolve(Environment) error {
	found := bindHost("data-addr", "--port", &f.DataAddr)
	if f.Generate == "" {
		if err := checkFolder(f.Webroot); err != nil {
			found.add("webroot", "", "%s", err)
		}
		found = append(found, f.BasicAuth.resolve()...)
	}
	if f.BasicAuthUsername != defaultUsername && f.BasicAuthPassword.Empty() && f.BasicAuthPasswordFile == "" {
		found.add("basic-auth-username", "give --basic-auth-password-file FILE too", "without a password everyone is let in")
	}
	if strings.Contains(f.BasicAuthUsername, ":") {
		found.add("basic-auth-username", "", "a name with ':' cannot be sent by a browser")
	}
	return append(found, f.Generator.validate()...).Err()
}

func (b *BasicAuth) resolve() (found Problems) {
	if b.BasicAuthPasswordFile == "" {
		return nil
	}
	if !b.BasicAuthPassword.Empty() {
		found.add("basic-auth-password", "keep one of them", "the password is given by --basic-auth-password-file too")
		return found
	}
	secret, err := auth.ReadSecretFile(b.BasicAuthPasswordFile)
	if err != nil {
		found.add("basic-auth-password-file", "", "%s", err)
		return found
	}
	b.BasicAuthPassword = secret
	return nil
}
