package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

const urlForm = "wss://HOST:8123"

// withScheme is what was most likely meant by a URL without scheme.
func withScheme(raw string) string {
	host, port, ok := cutPort(raw)
	if !ok {
		port = "8123"
	}
	host, err := dialHost(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if _, bad := parsePort(port); err != nil || bad != nil {
		return urlForm
	}
	return "wss://" + net.JoinHostPort(host, port)
}

// parseURL reads the address of a server's control port.
func parseURL(raw string, plaintext bool) (*url.URL, *Problem) {
	bad := func(remedy, fault string, args ...any) (*url.URL, *Problem) {
		return nil, &Problem{Flag: "url", Fault: fmt.Sprintf(fault, args...), Remedy: remedy}
	}
	const form = "write " + urlForm
	scheme, _, ok := strings.Cut(raw, "://")
	if !ok {
		return bad("write "+withScheme(raw), "%q has no scheme", shorten(raw))
	}
	u, err := url.Parse(raw)
	if err != nil || u.User != nil { // either may hold a password: it is not quoted
		return bad(form, "not a URL of scheme, host, port and path")
	}
	port := "443"
	switch strings.ToLower(scheme) {
	case "wss":
	case "tls":
		if u.Path != "" && u.Path != "/" {
			return bad("leave the path out, or use wss://", "tls:// has no path")
		}
	case "ws":
		if !plaintext {
			return bad("use wss://, or add --insecure-plaintext", "%q is not encrypted: anyone on the way could read the token", shorten(raw))
		}
		port = "80"
	case "https", "http":
		return bad("write wss://"+shorten(u.Host)+shorten(u.Path), "%q is the scheme of a website", scheme)
	case "quic":
		return bad("use wss://", "%s:// comes with a later version", scheme)
	default:
		return bad(form, "the scheme %q is unknown", shorten(scheme))
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return bad("give the token by --token-file", "%q has more than scheme, host, port and path", shorten(u.Scheme+"://"+u.Host+u.Path+"?…"))
	}
	host, err := dialHost(u.Hostname())
	if err != nil {
		return bad(form, "%s", err)
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if _, err := parsePort(p); err != nil {
			return bad(form, "%s", err)
		}
		port = p
	}
	path := u.Path
	switch {
	case u.Scheme == "tls":
		path = ""
	case path == "" || path == "/":
		path = "/connect"
	}
	return &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(host, port), Path: path}, nil
}

const proxyForm = "write http://HOST:PORT"

// parseProxy reads the forward proxy. What is wrong with it is not quoted, because it may hold a password.
func (c *Client) parseProxy() (found Problems) {
	if c.HTTPProxy == "" {
		return nil
	}
	u, err := url.Parse(c.HTTPProxy)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		found.add("http-proxy", proxyForm, "not a URL of scheme, host and port")
		return found
	}
	if !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		found.add("http-proxy", "use http://, https:// or socks5://", "the scheme %q cannot be used", shorten(u.Scheme))
		return found
	}
	host, err := dialHost(u.Hostname())
	if err != nil {
		found.add("http-proxy", proxyForm, "%s", err)
		return found
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if _, err := parsePort(p); err != nil {
			found.add("http-proxy", proxyForm, "%s", err)
			return found
		}
		host = net.JoinHostPort(host, p)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if _, password := u.User.Password(); password && c.Generate != "" {
		found.add("http-proxy", "leave it out, and set HTTPS_PROXY for the service", "holds a password, which does not belong into a unit or manifest")
		return found
	}
	c.ProxyURL = &url.URL{Scheme: u.Scheme, User: u.User, Host: host}
	return nil
}
