package config

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"culvert/internal/client"
	"culvert/internal/hostname"
	"culvert/internal/tunnel"
)

// Divert is the configuration of the divert command.
type Divert struct {
	// ServerURL is the server as typed.
	ServerURL string `flag:"url" oldshort:"r" unit:"URL" group:"Connection" help:"server: wss://HOST[:PORT][/PATH], port 443 and path /connect if left out, or tls://HOST[:PORT]"`
	HTTPProxy string `flag:"http-proxy" shown:"that of the environment" unit:"URL" group:"Connection" help:"forward proxy to the server: http://[NAME:PASSWORD@]HOST:PORT, https:// or socks5:// likewise"`
	ID        string `flag:"id" shown:"the name of this machine" unit:"ID" group:"Connection" help:"who diverts, for the server's status and log"`

	DivertWish
	ServerTrust
	Credential
	InsecureNoAuth bool `flag:"insecure-no-auth" group:"Security" help:"connect without a token, to a server that asks for none"`
	Drain
	Output
	Log

	// Client is how the server is reached, Wish what is diverted, and Target where it goes. Resolve makes them.
	Client Client
	Wish   tunnel.Diversion
	Target client.Upstream
}

// DivertWish is which traffic is diverted, where to and for how long, as typed.
type DivertWish struct {
	Entrypoint string        `flag:"entrypoint" unit:"NAME" group:"Data plane" help:"entrypoint of the server whose traffic is diverted"`
	Source     []string      `flag:"source" shown:"everyone" unit:"CIDR" group:"Data plane" help:"visitors whose traffic is diverted: 203.0.113.7, 2001:db8::/32; repeatable"`
	SNI        []string      `flag:"sni" shown:"every host" unit:"HOST" group:"Data plane" help:"hosts whose traffic is diverted, of an entrypoint of TLS: api.example.com, *.example.com; repeatable"`
	Percent    float64       `flag:"percent" default:"-1" shown:"100" unit:"PERCENT" group:"Data plane" help:"share of the new connections that is diverted, of those that --source and --sni choose"`
	To         string        `flag:"to" unit:"TARGET" group:"Data plane" help:"where the traffic goes: HOST:PORT or unix:PATH as seen from this machine"`
	For        time.Duration `flag:"for" default:"30m" unit:"DURATION" group:"Data plane" help:"how long, at most 24h; Ctrl-C ends it before"`
	OnDown     string        `flag:"on-down" default:"fallback" values:"fallback fail" unit:"WHAT" group:"Data plane" help:"what becomes of visitors while the target refuses them or does not answer within a second: fallback, to the entrypoint's own routes, or fail"`
	Existing   string        `flag:"existing" shown:"keep for TCP and TLS, move for UDP" values:"keep move" unit:"WHAT" group:"Data plane" help:"what becomes of connections and flows that are open when the divert begins: keep or move; flows that move go back when it ends"`
}

// percentNotGiven is the default: all of the traffic, if something else says which.
const percentNotGiven = -1

// maxDivert is the longest divert that a server takes.
const maxDivert = 24 * time.Hour

// Resolve reads the token, the URL and the target and checks everything. The error is Problems.
func (d *Divert) Resolve(env Environment) error {
	d.Client = NewClient(TCP)
	c := &d.Client
	c.HTTPProxy, c.ServerTrust, c.Drain, c.Log = d.HTTPProxy, d.ServerTrust, d.Drain, d.Log
	u, found := reach(d.ServerURL, &d.ServerTrust, &d.Credential, d.InsecureNoAuth, env)
	if u != nil {
		c.URLs = []*url.URL{u}
	}
	found = append(found, c.parseProxy()...)
	c.Credential, c.InsecureNoAuth = d.Credential, d.InsecureNoAuth
	if d.ID == "" {
		d.ID = machineName()
	}
	if !word(d.ID) {
		found.add("id", "use 1 to 128 letters, digits, '.', '-' and '_'", "%q is not an identity", shorten(d.ID))
	}
	c.ID = d.ID
	return append(found, d.resolveWish()...).Err()
}

// machineName is the name of this machine, as far as it is fit for an identity.
func machineName() string {
	name, _ := os.Hostname()
	if !word(name) {
		return "divert"
	}
	return name
}

func (d *Divert) resolveWish() (found Problems) {
	switch {
	case d.Percent == percentNotGiven && len(d.Source)+len(d.SNI) == 0:
		found.add("source", "give --source or --sni, or --percent 100 for all of it", "it is not said which traffic is to be diverted")
		d.Percent = 100
	case d.Percent == percentNotGiven:
		d.Percent = 100
	}
	d.Wish = tunnel.Diversion{
		Entrypoint: d.Entrypoint, Sources: d.Source, Hosts: d.SNI, Percent: d.Percent, For: d.For, Fail: d.OnDown == "fail", Existing: d.Existing,
	}
	if d.Entrypoint == "" {
		found.add("entrypoint", "give --entrypoint NAME; culvert status lists those of the server", "it is not said whose traffic is to be diverted")
	}
	for _, s := range d.Source {
		if _, err := parsePrefix(s); err != nil {
			found.add("source", "", "%s", err)
		}
	}
	for _, s := range d.SNI {
		if _, err := hostname.ParsePattern(s); err != nil {
			found.add("sni", "", "%s", err)
		}
	}
	if !(d.Percent > 0 && d.Percent <= 100) {
		found.add("percent", "give more than 0, at most 100", "%v percent of the connections", d.Percent)
	}
	if d.For < time.Second || d.For > maxDivert {
		found.add("for", "give 1s to 24h", "a divert cannot last %s", d.For)
	}
	target, err := parseDivertTarget(d.To)
	switch {
	case d.To == "":
		found.add("to", "give --to 127.0.0.1:9000", "it is not said where the traffic is to go")
	case err != nil:
		found.add("to", "write HOST:PORT or unix:PATH", "%s", err)
	}
	d.Target = target
	return found
}

// parseDivertTarget reads HOST:PORT or a path.
func parseDivertTarget(s string) (client.Upstream, error) {
	if strings.HasPrefix(s, "/") {
		s = "unix:" + s
	}
	t, err := parseTarget(s)
	if err != nil {
		return client.Upstream{}, err
	}
	if t.bare() || t.scheme != "" && t.scheme != client.SchemeTCP {
		return client.Upstream{}, fmt.Errorf("%q has no port, or more than a host and a port", shorten(s))
	}
	return client.Upstream{Scheme: client.SchemeTCP, Network: t.network, Address: t.address, Spec: t.text}, nil
}

// DivertList is the configuration of the command that lists diverts.
type DivertList = Question

// DivertEnd is the configuration of the command that ends a divert, whose id it takes as an argument.
type DivertEnd = Order
