package config

import (
	"net/url"

	"culvert/internal/client"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
)

// Client is the configuration of a client. NewClient makes one with defaults; Resolve completes and checks it.
type Client struct {
	Mode Mode
	Remote
	Credential
	InsecureNoAuth bool `flag:"insecure-no-auth" group:"Security" help:"connect without a token, to a server that asks for none"`
	Identity
	Targets
	Share
	HealthChecks
	Drain
	Log
	Generator

	// URLs are the servers: scheme, host:port and path, all present. Resolve makes them of URL.
	URLs []*url.URL
	// ProxyURL is the forward proxy that was asked for; nil means that of the environment. Resolve makes it of HTTPProxy.
	ProxyURL *url.URL
	// Upstreams are what is offered. Resolve makes them of Upstream and Ports.
	Upstreams []client.Upstream
}

// Remote is which servers to connect to, and what to trust them by.
type Remote struct {
	URL       []string `flag:"url" oldshort:"r" unit:"URL" group:"Connection" help:"server: wss://HOST[:PORT][/PATH], port 443 and path /connect if left out, or tls://HOST[:PORT]; repeatable"`
	HTTPProxy string   `flag:"http-proxy" shown:"that of the environment" unit:"URL" group:"Connection" help:"forward proxy to the server: http://[NAME:PASSWORD@]HOST:PORT, https:// or socks5:// likewise"`
	Links     int      `flag:"links" default:"4" unit:"N" group:"Advanced" help:"connections to a server under load, at most; one otherwise"`
	ServerTrust
}

// ServerTrust is how a server is believed to be the right one.
type ServerTrust struct {
	AutoTLS           bool   `flag:"auto-tls" default:"true" group:"Security" help:"fetch the server's own CA and verify it with the token; false for a certificate of a public CA or of --tls-ca"`
	TLSCA             string `flag:"tls-ca" file:"ca.crt" unit:"FILE" group:"Security" help:"CA certificates to trust instead of the system's (PEM), with --auto-tls=false"`
	InsecurePlaintext bool   `flag:"insecure-plaintext" group:"Security" help:"allow ws:// URLs: anyone on the way can read the token and all traffic"`
}

// Identity is what the server knows the client by.
type Identity struct {
	ID       string            `flag:"id" shown:"made once and kept in the state folder" unit:"ID" group:"Connection" help:"stable identity of this client, shown in status"`
	Labels   map[string]string `flag:"label" unit:"KEY=VALUE" group:"Connection" help:"label of this client, shown in status; repeatable"`
	StateDir string            `flag:"state-dir" shown:"the state folder of systemd or of the user" unit:"FOLDER" group:"Advanced" help:"where the identity is kept"`
}

// Targets are the local services as typed.
type Targets struct {
	Upstream []string `flag:"upstream" oldshort:"u" unit:"UPSTREAM" group:"Data plane" help:"local service to offer: http://HOST:PORT, NAME[/PATH]=http://HOST:PORT, [PORT=]HOST:PORT, udp/PORT=HOST:PORT; the target may be unix:PATH or file:FOLDER too; repeatable"`
	Ports    []uint16 `flag:"ports" alias:"port" short:"p" modes:"tcp udp mixed" unit:"PORTS" group:"Data plane" help:"ports of an --upstream HOST without one, the same on both sides: 80,443 (also --port); repeatable"`
	// ProxyProtocol is "server" for what the server wishes, and "" for none.
	ProxyProtocol string `flag:"proxy-protocol" modes:"tcp udp mixed" default:"server" values:"server v1 v2" blank:"off" unit:"VERSION" group:"Data plane" help:"send a PROXY header to TCP and UDP services: v1, v2, \"\" for none, or server for what the server wishes"`
}

// Share is which part of a tunnel's visitors the client takes beside others.
type Share struct {
	Weight int  `flag:"weight" default:"1" unit:"N" group:"Data plane" help:"share of the visitors beside other clients of the same tunnels, 1 to 65536"`
	Backup bool `flag:"backup" group:"Data plane" help:"take visitors only while no client that is no backup can"`
}

// NewClient is a client's configuration with every setting at its default.
func NewClient(mode Mode) Client {
	var c Client
	Describe(&c, mode)
	c.Mode = mode
	return c
}

// Resolve reads the token, the URLs and the upstreams, fills in what depends on the environment, checks the files that are
// named and then everything else. The error is Problems. When a unit or manifest is asked for, files are left alone.
func (c *Client) Resolve(env Environment) error {
	var found Problems
	c.URLs, c.ProxyURL, c.Upstreams = nil, nil, nil
	for _, raw := range c.URL {
		u, err := parseURL(raw, c.InsecurePlaintext)
		if err != nil {
			found = append(found, *err)
			continue
		}
		c.URLs = append(c.URLs, u)
	}
	urls := len(found) == 0
	found = append(found, c.parseProxy()...)
	unread := c.parseUpstreams()
	upstreams := len(unread) == 0
	found = append(found, unread...)
	if c.Generate == "" {
		found = append(found, c.Credential.resolve(env)...)
		found = append(found, c.checkFiles()...)
		found = append(found, needToken(&c.Credential, c.InsecureNoAuth)...)
	}
	if upstreams {
		found = append(found, c.assignChecks()...)
	}
	if c.StateDir == "" {
		c.StateDir = defaultStateDir(env)
	}
	// What could not be read has been told; that it is missing then follows.
	for _, p := range c.validate() {
		if p.Flag == "url" && !urls || p.Flag == "upstream" && !upstreams {
			continue
		}
		found = append(found, p)
	}
	return found.Err()
}

// validate checks what needs no file and no environment.
func (c *Client) validate() (found Problems) {
	if len(c.URLs) == 0 {
		found.add("url", "give --url wss://HOST:8123", "a client needs the address of a server")
	}
	if len(c.Upstreams) == 0 {
		found.add("upstream", upstreamRemedy(c.Mode), "a client needs something to offer")
	}
	first := map[string]string{}
	for _, u := range c.Upstreams {
		name := u.Tunnel.String()
		if spec, ok := first[name]; ok {
			found.add("upstream", "give one of them another host, path or port", "%s and %s are both for %s", spec, u.Spec, describeTunnel(u.Tunnel))
			continue
		}
		first[name] = u.Spec
	}
	found = append(found, c.ServerTrust.validate(&c.Credential, c.InsecureNoAuth, c.encrypted())...)
	if c.Weight < 1 || c.Weight > tunnel.MaxWeight {
		found.add("weight", "", "%d; give 1 to %d", c.Weight, tunnel.MaxWeight)
	}
	found = append(found, c.HealthChecks.validate()...)
	if c.Links < 1 || c.Links > 16 {
		found.add("links", "", "%d connections to a server; give 1 to 16", c.Links)
	}
	if c.ID != "" && !word(c.ID) {
		found.add("id", "use 1 to 128 letters, digits, '.', '-' and '_'", "%q is not an identity", shorten(c.ID))
	}
	return append(found, c.Generator.validate()...)
}

func upstreamRemedy(mode Mode) string {
	switch mode {
	case HTTP:
		return "give --upstream http://127.0.0.1:3000 or --upstream app.example.com=http://127.0.0.1:3000"
	case UDP:
		return "give --upstream 127.0.0.1 --ports 53,51820 or --upstream 5353=127.0.0.1:53"
	case TCP:
		return "give --upstream 127.0.0.1 --ports 22,80 or --upstream 2222=127.0.0.1:22"
	}
	return "give --upstream http://127.0.0.1:3000 or --upstream 2222=127.0.0.1:22"
}

// encrypted says whether any server is reached over TLS.
func (c *Client) encrypted() bool {
	for _, u := range c.URLs {
		if u.Scheme != "ws" {
			return true
		}
	}
	return false
}

func (t *ServerTrust) validate(token *Credential, noToken, encrypted bool) (found Problems) {
	if t.TLSCA != "" && t.AutoTLS {
		found.add("tls-ca", "add --auto-tls=false", "not used while auto-TLS is on")
	}
	if !t.AutoTLS || !encrypted {
		return found
	}
	if noToken {
		found.add("auto-tls", "copy the server's ca.crt here and give --tls-ca ca.crt --auto-tls=false",
			"without a token there is nothing to verify the server's CA with")
	}
	return append(found, token.checkBootstrap()...)
}

func (t *ServerTrust) checkFiles() (found Problems) {
	if t.TLSCA != "" {
		if err := checkCA(t.TLSCA); err != nil {
			found.add("tls-ca", "", "%s", err)
		}
	}
	return found
}

// reach resolves and checks how a command reaches a server: by the URL as typed, which is nil if it is wrong, with a token, and
// with what the server is believed by.
func reach(typed string, trust *ServerTrust, token *Credential, noToken bool, env Environment) (u *url.URL, found Problems) {
	if typed == "" {
		found.add("url", "give --url wss://HOST:8123", "the address of a server is missing")
	} else if parsed, err := parseURL(typed, trust.InsecurePlaintext); err != nil {
		found = append(found, *err)
	} else {
		u = parsed
	}
	found = append(found, token.resolve(env)...)
	found = append(found, needToken(token, noToken)...)
	found = append(found, trust.validate(token, noToken, u != nil && u.Scheme != "ws")...)
	return u, append(found, trust.checkFiles()...)
}

func needToken(token *Credential, noToken bool) (found Problems) {
	switch {
	case token.CredentialGiven() && noToken:
		found.add("insecure-no-auth", "leave one of the two out", "contradicts the token that is given")
	case !token.CredentialGiven() && !noToken:
		found.add("token-file", "give --token-file FILE, --token-env NAME or --token TOKEN", "the server's token is missing")
	}
	return found
}

func (c *Client) checkFiles() (found Problems) {
	found = c.ServerTrust.checkFiles()
	for _, u := range c.Upstreams {
		if u.Scheme == client.SchemeFile {
			if err := checkFolder(u.Address); err != nil {
				found.add("upstream", "", "%s: %s", u.Spec, err)
			}
		}
	}
	return found
}

// ServiceHeader is the version of the PROXY header that TCP services get; nil for what the server wishes.
func (t *Targets) ServiceHeader() *proxyproto.Version {
	if t.ProxyProtocol == "server" {
		return nil
	}
	v, _ := proxyproto.ParseVersion(t.ProxyProtocol) // one of the values that there are
	return &v
}

// Folders are the folders that upstreams serve, as typed.
func (c *Client) Folders() []string {
	var folders []string
	for _, u := range c.Upstreams {
		if u.Scheme == client.SchemeFile {
			folders = append(folders, u.Address)
		}
	}
	return folders
}
