package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"culvert/internal/auth"
)

// Server is the configuration of a server. NewServer makes one with defaults; Resolve completes and checks it.
type Server struct {
	Mode Mode
	File
	Listen
	ServerTLS
	Credential
	Tokens         string `flag:"tokens" file:"tokens.yaml" unit:"FILE" group:"Security" help:"file of many tokens, hashed, each with its own grant and expiry; read again when it changes"`
	InsecureNoAuth bool   `flag:"insecure-no-auth" needs:"control" group:"Security" help:"run without a credential: whoever reaches the control port may offer anything"`
	Access
	Balancer
	Limits
	Drain
	Grace
	Connections
	Log
	Generator
}

// Listen is where a server listens. Addresses are hosts without port, IPv6 without brackets.
type Listen struct {
	ControlAddr string `flag:"control-addr" needs:"control" default:"0.0.0.0" unit:"ADDRESS" group:"Connection" help:"address that clients connect to, also of /status and /metrics"`
	ControlPort uint16 `flag:"control-port" needs:"control" short:"c" default:"8123" unit:"PORT" group:"Connection" help:"port that clients connect to"`
	DataAddr    string `flag:"data-addr" needs:"control" default:"0.0.0.0" unit:"ADDRESS" group:"Data plane" help:"address that visitors connect to; 127.0.0.1 keeps the tunnels private to this machine"`
	Port        uint16 `flag:"port" short:"p" modes:"http mixed" default:"8000" unit:"PORT" group:"Data plane" help:"port of HTTP, routed to clients by host name"`
	TLSPort     uint16 `flag:"tls-port" modes:"tcp mixed" default:"0" shown:"none" unit:"PORT" group:"Data plane" help:"port of TLS, passed on to clients by the host name that visitors ask for, and not decrypted"`
	// HealthAddr is host:port; empty for none.
	HealthAddr string `flag:"health-addr" unit:"HOST:PORT" group:"Health" help:"plain HTTP for /healthz and /readyz, which the control port has too"`
}

// ServerTLS is how the control port is encrypted: by an own CA, by a given certificate, or not at all.
type ServerTLS struct {
	AutoTLS           bool     `flag:"auto-tls" needs:"control" default:"true" group:"Security" help:"make a CA and a certificate for the control port, which clients verify with the token"`
	AutoTLSSAN        []string `flag:"auto-tls-san" needs:"control" shown:"the names and addresses of this machine" unit:"HOST" group:"Security" help:"name or address in that certificate, by which clients reach the server; repeatable"`
	AutoTLSPath       string   `flag:"auto-tls-path" needs:"control" shown:"the state folder of systemd or of the user" unit:"FOLDER" group:"Security" help:"where that CA and certificate are kept"`
	TLSCert           string   `flag:"tls-cert" needs:"control" file:"tls.crt" unit:"FILE" group:"Security" help:"own certificate of the control port (PEM), with --auto-tls=false; read again when it changes"`
	TLSKey            string   `flag:"tls-key" needs:"control" file:"tls.key" unit:"FILE" group:"Security" help:"key of that certificate (PEM)"`
	InsecurePlaintext bool     `flag:"insecure-plaintext" needs:"control" group:"Security" help:"no TLS on the control port, for a proxy in front that ends TLS; with --auto-tls=false"`
}

// Access is who may connect, and what ports clients may open. An empty list allows everyone.
type Access struct {
	AllowIPs        []netip.Prefix `flag:"allow-ips" shown:"everyone" unit:"CIDR" group:"Security" help:"addresses that may connect, to the control port and the data plane; repeatable"`
	ControlAllowIPs []netip.Prefix `flag:"control-allow-ips" needs:"control" shown:"--allow-ips" unit:"CIDR" group:"Security" help:"the same for the control port alone; repeatable"`
	DataAllowIPs    []netip.Prefix `flag:"data-allow-ips" shown:"--allow-ips" unit:"CIDR" group:"Security" help:"the same for the data plane alone; repeatable"`
	AllowPorts      auth.Ports     `flag:"allow-ports" needs:"control" modes:"tcp mixed lb" default:"1-65535" shown:"all but the server's own" unit:"PORTS" group:"Data plane" help:"TCP and UDP ports that clients may open: 2222,8000-8100"`
}

// Limits bound what strangers cost.
type Limits struct {
	MaxUnauthenticated          int `flag:"max-unauthenticated" needs:"control" default:"512" unit:"N" group:"Advanced" help:"connections to the control port that have not shown a token yet, in all"`
	MaxUnauthenticatedPerSource int `flag:"max-unauthenticated-per-source" needs:"control" default:"32" unit:"N" group:"Advanced" help:"the same from one address (IPv6: one /64)"`
}

// Drain is how long an orderly end may take.
type Drain struct {
	DrainTimeout time.Duration `flag:"drain-timeout" default:"30s" unit:"DURATION" group:"Advanced" help:"how long open connections may finish after SIGTERM"`
}

// Connections is what is kept and written of visitors' connections.
type Connections struct {
	AccessLog         string `flag:"access-log" shown:"none" unit:"FILE" group:"Advanced" help:"file that gets a line for each connection that has ended, - for standard output; opened anew when it is renamed"`
	AccessLogFormat   string `flag:"access-log-format" default:"text" values:"text json" unit:"FORMAT" group:"Advanced" help:"form of that file: text or json"`
	ConnectionRecords int    `flag:"connection-records" default:"8192" unit:"N" group:"Advanced" help:"how many connections, the newest, are kept for culvert explain; about 500 bytes each, 0 for none"`
}

func (c *Connections) validate() (found Problems) {
	if c.ConnectionRecords < 0 || c.ConnectionRecords > 1<<24 {
		found.add("connection-records", "", "%d connections cannot be kept; give 0 to %d", c.ConnectionRecords, 1<<24)
	}
	return found
}

// Grace is how long a server that goes down still takes visitors.
type Grace struct {
	ReadyGrace time.Duration `flag:"ready-grace" default:"10s" unit:"DURATION" group:"Advanced" help:"how long visitors are still taken after SIGTERM while /readyz says no, if somebody has been asking it; 0 for not at all"`
}

// NewServer is a server's configuration with every setting at its default.
func NewServer(mode Mode) Server {
	var s Server
	Describe(&s, mode)
	s.Mode = mode
	return s
}

// ControlSources are the addresses that may connect to the control port; empty for everyone.
func (a *Access) ControlSources() []netip.Prefix {
	if len(a.ControlAllowIPs) > 0 {
		return a.ControlAllowIPs
	}
	return a.AllowIPs
}

// DataSources are the addresses that may connect to the data plane; empty for everyone.
func (a *Access) DataSources() []netip.Prefix {
	if len(a.DataAllowIPs) > 0 {
		return a.DataAllowIPs
	}
	return a.AllowIPs
}

// Resolve reads the token, fills in what depends on the environment, checks the files that are named and then
// everything else. The error is Problems. When a unit or manifest is asked for, files are left alone: they are for
// the machine that it is meant for, not for this one.
func (s *Server) Resolve(env Environment) error {
	var found Problems
	if s.Generate == "" && !s.elsewhere {
		found = append(found, s.Credential.resolve(env)...)
		found = append(found, s.checkFiles()...)
	}
	if s.Generate == "" {
		if !s.Authenticates() && !s.InsecureNoAuth && s.Mode != LB {
			found.add("token-file", "give --token-file FILE, --tokens FILE, or --insecure-no-auth if you mean it",
				"a server needs a credential")
		}
	}
	if s.AutoTLSPath == "" {
		s.AutoTLSPath = defaultStateDir(env)
	}
	return append(found, s.validate()...).Err()
}

// validate checks what needs no file and no environment, and puts addresses into their canonical form.
func (s *Server) validate() (found Problems) {
	found = append(found, s.Listen.validate(s.Mode, s.HasControl())...)
	found = append(found, s.ServerTLS.validate()...)
	if s.AutoTLS {
		found = append(found, s.checkBootstrap()...)
	}
	if s.InsecureNoAuth && s.Authenticates() {
		found.add("insecure-no-auth", "leave one of the two out", "contradicts the token that is given")
	}
	if s.Mode.HasTCP() && s.AllowPorts.IsZero() {
		found.add("allow-ports", "", "allows no port at all")
	}
	found = append(found, s.Balancer.validate(s.HealthAddr != "")...)
	found = append(found, s.Limits.validate()...)
	found = append(found, s.Connections.validate()...)
	found = append(found, s.Generator.validate()...)
	return append(found, s.validateFile()...)
}

// Authenticates says whether a token, or a file of tokens, is given.
func (s *Server) Authenticates() bool { return s.CredentialGiven() || s.Tokens != "" }

// HasControl says whether there is a control port: a load balancer alone has one only for clients that it can tell apart,
// or that it was told not to.
func (s *Server) HasControl() bool { return s.Mode != LB || s.Authenticates() || s.InsecureNoAuth }

func (t *ServerTLS) validate() (found Problems) {
	own := t.TLSCert != "" || t.TLSKey != ""
	switch {
	case t.TLSCert == "" && own:
		found.add("tls-cert", "give --tls-cert FILE too", "missing beside --tls-key")
	case t.TLSKey == "" && own:
		found.add("tls-key", "give --tls-key FILE too", "missing beside --tls-cert")
	case own && t.AutoTLS:
		found.add("tls-cert", "add --auto-tls=false", "an own certificate is not used while auto-TLS is on")
	case own && t.InsecurePlaintext:
		found.add("insecure-plaintext", "leave one of the two out", "contradicts --tls-cert")
	case t.InsecurePlaintext && t.AutoTLS:
		found.add("insecure-plaintext", "add --auto-tls=false", "contradicts auto-TLS, which is on")
	case !own && !t.AutoTLS && !t.InsecurePlaintext:
		found.add("auto-tls", "give --tls-cert and --tls-key, or --insecure-plaintext behind a proxy that ends TLS",
			"without it the control port has no certificate")
	}
	if !t.AutoTLS && len(t.AutoTLSSAN) > 0 {
		found.add("auto-tls-san", "leave it out", "not used with --auto-tls=false")
	}
	for i, san := range t.AutoTLSSAN {
		host, err := canonicalSAN(san)
		if err != nil {
			found.add("auto-tls-san", "give a host name or an address without scheme and port", "%s", err)
			continue
		}
		t.AutoTLSSAN[i] = host
	}
	slices.Sort(t.AutoTLSSAN)
	t.AutoTLSSAN = slices.Compact(t.AutoTLSSAN)
	return found
}

func (l *Limits) validate() (found Problems) {
	if l.MaxUnauthenticated < 1 {
		found.add("max-unauthenticated", "", "%d would let no client in; give 1 or more", l.MaxUnauthenticated)
	}
	if l.MaxUnauthenticatedPerSource < 1 {
		found.add("max-unauthenticated-per-source", "", "%d would let no client in; give 1 or more", l.MaxUnauthenticatedPerSource)
	}
	return found
}

// checkFiles reads every file that is named, so that a wrong one is told before anything is opened.
func (s *Server) checkFiles() (found Problems) {
	if s.TLSCert != "" && s.TLSKey != "" {
		if err := checkKeyPair(s.TLSCert, s.TLSKey); err != nil {
			found.add("tls-cert", "", "%s", err)
		}
	}
	if s.Tokens != "" {
		if _, err := auth.ReadTokens(s.Tokens); err != nil {
			remedy := ""
			if errors.Is(err, fs.ErrNotExist) {
				remedy = "make it with: culvert token new"
			} else if _, one := auth.ReadSecretFile(s.Tokens); one == nil {
				remedy = "a file of one shared token is for --token-file"
			}
			found.add("tokens", remedy, "%s", err)
		}
	}
	return found
}
