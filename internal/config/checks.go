package config

import (
	"fmt"
	"strings"
	"time"

	"culvert/internal/client"
	"culvert/internal/tunnel"
	"culvert/internal/upstream/health"
)

// HealthChecks are how a client checks its services.
type HealthChecks struct {
	HealthCheck    Lines         `flag:"health-check" unit:"CHECK" group:"Health" help:"check the services, and take no visitors for one that is down: tcp, http:/PATH, expect:SEND|ANSWER, udp:SEND|ANSWER; for one of them WHERE=CHECK, as in 2222=expect:SSH-2.0; repeatable"`
	HealthInterval time.Duration `flag:"health-interval" default:"2s" unit:"DURATION" group:"Health" help:"time between checks of a service"`
	HealthTimeout  time.Duration `flag:"health-timeout" default:"1s" unit:"DURATION" group:"Health" help:"how long a check may take, never more than the interval"`
	HealthRise     int           `flag:"health-rise" default:"2" unit:"N" group:"Health" help:"good answers in a row that make a service usable again"`
	HealthFall     int           `flag:"health-fall" default:"3" unit:"N" group:"Health" help:"failures in a row that make a service unusable"`
}

func (h *HealthChecks) validate() (found Problems) {
	const shortest, most = 10 * time.Millisecond, 1000
	duration := func(flag string, d time.Duration) {
		if d < shortest {
			found.add(flag, "", "%s is too short; give %s or more", d, shortest)
		}
	}
	count := func(flag string, n int) {
		if n < 1 || n > most {
			found.add(flag, "", "%d; give 1 to %d", n, most)
		}
	}
	duration("health-interval", h.HealthInterval)
	duration("health-timeout", h.HealthTimeout)
	count("health-rise", h.HealthRise)
	count("health-fall", h.HealthFall)
	return found
}

// Lines is a list whose items may hold commas: a flag gives one at a time.
type Lines []string

// assignChecks gives each upstream its check: the one for its tunnel, else the one for all.
func (c *Client) assignChecks() (found Problems) {
	var all *health.Check
	byTunnel := map[tunnel.Name]*health.Check{}
	for _, line := range c.HealthCheck {
		name, one, check, err := parseHealthCheck(line)
		switch {
		case err != nil:
			found.add("health-check", "", "%s", err)
			continue
		case !one && all != nil:
			found.add("health-check", "write WHERE=CHECK for one service", "%s and %s are both for every service", all, check)
			continue
		case one && byTunnel[name] != nil:
			found.add("health-check", "leave one of the two out", "%s and %s are both for %s", byTunnel[name], check, describeTunnel(name))
			continue
		}
		check.Interval, check.Timeout = c.HealthInterval, c.HealthTimeout
		check.Rise, check.Fall = c.HealthRise, c.HealthFall
		if !one {
			all = &check
			continue
		}
		byTunnel[name] = &check
	}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		check := byTunnel[u.Tunnel]
		delete(byTunnel, u.Tunnel)
		switch fault := uncheckable(*u, check); {
		case fault != "":
			found.add("health-check", "", "%s: %s", describeTunnel(u.Tunnel), fault)
		case check != nil:
			u.Check = check
		case all != nil && uncheckable(*u, all) == "":
			u.Check = all
		}
	}
	for name, check := range byTunnel {
		found.add("health-check", "name it as at --upstream", "%s is for %s, and there is no such upstream", check, describeTunnel(name))
	}
	return found
}

// uncheckable says why a check cannot be made of an upstream; "" if it can.
func uncheckable(u client.Upstream, check *health.Check) string {
	udp := u.Tunnel.Kind() == tunnel.UDP
	switch {
	case check == nil:
		return ""
	case u.Scheme == client.SchemeFile:
		return "a folder is not checked"
	case check.Kind == health.UDP && !udp:
		return "a udp check is for UDP services; use tcp, http or expect"
	case check.Kind != health.UDP && udp && check.Port == 0:
		return fmt.Sprintf("a %s check of a UDP service needs a port, as in tcp:8081; or use udp:SEND|ANSWER", check.Kind)
	case check.Port != 0 && u.Network == "unix":
		return "a socket in the file system has no port"
	}
	return ""
}

// parseHealthCheck reads [WHERE=]CHECK, where WHERE is the left side of an upstream. one says that it is there.
func parseHealthCheck(line string) (name tunnel.Name, one bool, check health.Check, err error) {
	where, spec, one := strings.Cut(line, "=")
	if !one || strings.Contains(where, ":") { // the '=' belongs to what is sent or asked for
		where, spec, one = "", line, false
	}
	if one {
		if name, err = parseWhere(where, true); err != nil {
			return name, one, check, fmt.Errorf("%s: %w", shorten(line), err)
		}
	}
	if check, err = health.Parse(spec); err != nil {
		return name, one, check, fmt.Errorf("%s: %w", shorten(line), err)
	}
	return name, one, check, nil
}
