package plan

import (
	"fmt"
	"strings"

	"culvert/internal/nearest"
)

// suggest is the remedy for a name that does not exist.
func suggest(name string, names []string) string {
	if best := nearest.Name(name, names); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	const most = 8
	switch {
	case len(names) == 0 || len(names) > most:
		return "add it below upstreams:"
	case len(names) == 1:
		return fmt.Sprintf("there is %q", names[0])
	}
	return "there are " + strings.Join(names, ", ")
}

// habits are words of HAProxy, nginx, Envoy and others for keys of ours.
var habits = map[string][]string{
	"frontend":        {"entrypoints"},
	"frontends":       {"entrypoints"},
	"listener":        {"entrypoints"},
	"listeners":       {"entrypoints"},
	"backend":         {"upstream", "upstreams"},
	"backends":        {"upstreams", "members"},
	"cluster":         {"upstream", "upstreams"},
	"clusters":        {"upstreams"},
	"pool":            {"upstream", "upstreams"},
	"pools":           {"upstreams"},
	"use_backend":     {"upstream"},
	"default_backend": {"upstream", "routes"},
	"proxy_pass":      {"upstream", "routes"},
	"to":              {"upstream"},
	"bind":            {"addr"},
	"listen":          {"addr", "entrypoints"},
	"address":         {"addr"},
	"server":          {"members", "address"},
	"servers":         {"members"},
	"targets":         {"members"},
	"endpoints":       {"members"},
	"src":             {"source"},
	"ip":              {"source"},
	"remote_addr":     {"source"},
	"acl":             {"match"},
	"sni":             {"host"},
	"server_name":     {"host"},
	"hosts":           {"host"},
	"policy":          {"balance"},
	"algorithm":       {"balance"},
	"check":           {"health"},
	"health_check":    {"health"},
	"httpchk":         {"http"},
	"uri":             {"path"},
	"string":          {"expect"},
	"body":            {"expect"},
	"ssl":             {"tls"},
	"check_ssl":       {"tls"},
	"verify":          {"insecure"},
	"max_fails":       {"eject"},
	"fail_timeout":    {"eject"},
	"retries":         {"connect"},
	"connect_timeout": {"connect"},
	"accept_proxy":    {"proxy_protocol"},
	"send_proxy":      {"proxy_protocol"},
}
