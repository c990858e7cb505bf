package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

const later = "comes with a later version"

// foreignFlag says what to type instead of a flag that other tunnels have, if cmd has the right one.
func foreignFlag(cmd *cobra.Command, name string) (string, bool) {
	if instead, ok := renamed(name); ok && cmd.Flags().Lookup(instead) != nil {
		return "here it is --" + instead, true
	}
	path := cmd.CommandPath()
	client, server := strings.HasSuffix(path, "client"), strings.HasSuffix(path, " server")
	switch name {
	case "license", "license-file", "license-env":
		return "Culvert needs no licence; leave it out", true
	case "print-token":
		return "the token is yours already; leave it out", true
	case "disable-transport-wrapping":
		return "Culvert changes no CORS headers; leave it out", true
	case "strict-forwarding":
		return "a client reaches its own upstreams only, always; leave it out", true
	case "auto-tls-legacy":
		return "Culvert always verifies the server's CA with the token; leave it out", true
	case "insecure-skip-verify", "skip-verify", "tls-skip-verify", "no-verify":
		return "certificates are always verified; use --auto-tls, or --tls-ca FILE for a CA of your own", true
	case "debug", "verbose":
		if cmd.Flags().Lookup("log-level") != nil {
			return "here it is --log-level debug", true
		}
	case "remote-tcp", "peers":
		return "clients tell the server what they offer; leave it out, and give a client --upstream", true
	case "port", "ports", "tcp-ports", "tcp-port":
		if server {
			return "clients say which ports to open; give --ports to culvert tcp client, and --allow-ports here to narrow them", true
		}
	case "demux":
		return "streams do not hold each other up; leave it out", true
	case "listen":
		if server {
			return "here it is --control-addr and --control-port", true
		}
	case "config", "print-config":
		return later + " for clients; use flags, or the environment variables of --help", client
	case "letsencrypt-domain", "letsencrypt-email", "letsencrypt-issuer", "letsencrypt-ca",
		"client-forwarding", "client-forwarding-allow",
		"registry", "join", "advertise-addr", "cluster-secret-file", "node-id":
		return later, server
	case "local", "local-addr", "connections", "basic-auth-username",
		"basic-auth-password", "basic-auth-password-file", "bearer-token", "bearer-token-file", "oidc-issuer",
		"oidc-client-id", "oidc-client-secret-file", "oidc-allow", "cookie-ttl", "oauth-provider", "oauth-client-id",
		"oauth-client-secret", "oauth-acl", "oauth-cookie-ttl", "request-header-add", "request-header-remove",
		"response-header-add", "response-header-remove", "host-header", "inspect", "tls-cert", "tls-key":
		return later, client
	}
	return "", false
}

// renamed is our name of a flag of other tunnels.
func renamed(name string) (string, bool) {
	switch name {
	case "remote", "connect", "server", "server-addr", "server-url", "exit-server":
		return "url", true
	case "target", "local-url", "upstreams", "backend":
		return "upstream", true
	case "tcp-ports", "tcp-port":
		return "ports", true
	case "common-name", "san", "tls-san":
		return "auto-tls-san", true
	case "auth", "auth-token", "secret", "authtoken":
		return "token", true
	case "allow-cidr", "allow-ip", "allowed-ips":
		return "allow-ips", true
	case "basic-auth-user":
		return "basic-auth-username", true
	case "ca", "ca-cert", "cacert", "ca-file":
		return "tls-ca", true
	case "cert", "certificate":
		return "tls-cert", true
	case "key":
		return "tls-key", true
	case "insecure", "no-tls", "plaintext":
		return "insecure-plaintext", true
	case "json", "format":
		return "output", true
	case "dir", "root", "path":
		return "webroot", true
	case "browse", "list":
		return "allow-browsing", true
	}
	return "", false
}

// foreignCommand says what to type instead of a command that other tunnels or later versions have.
func foreignCommand(name string) (string, bool) {
	switch name {
	case "uplink":
		return "use culvert client, which carries HTTP and TCP together", true
	case "tunnel":
		return "use culvert client, or culvert status to list what is connected", true
	case "plugin", "cloud":
		return "Culvert is one program and needs no such thing", true
	case "exit-server":
		return "use culvert server", true
	case "set", "enable", "disable": // of HAProxy's servers
		return "use culvert member drain, ready or weight", true
	case "show":
		return "use culvert status, or culvert explain for connections", true
	case "snimux", "sshmux", "visitor", "connect", "doctor", "docs":
		return later, true
	}
	return "", false
}
