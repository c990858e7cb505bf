package systems

import (
	"context"
	"os"
	"slices"

	"culvert/bench/proc"
)

// packages are Debian's for what the benchmark needs.
func packages() map[string]string {
	return map[string]string{
		"wrk": "wrk", "haproxy": "haproxy", "nginx": "nginx", streamModule: "libnginx-mod-stream",
		"sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client", "ip": "iproute2", "dnsmasq": "dnsmasq-base",
	}
}

// Install installs what is missing from Debian's packages, if this is root on a Debian, and says what it installs.
// It starts no service: policy-rc.d forbids it for the time.
func Install(ctx context.Context, say func(string)) error {
	var names []string
	for need, name := range packages() {
		if find(need) == "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 || os.Getuid() != 0 || find("apt-get") == "" {
		return nil
	}
	slices.Sort(names)
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat(policy); err != nil {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return err
		}
		defer func() { _ = os.Remove(policy) }()
	}
	for _, n := range names {
		say("installing " + n)
	}
	if _, err := proc.Run(ctx, "apt-get", "update"); err != nil {
		return err
	}
	_, err := proc.Run(ctx, append([]string{
		"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends",
	}, names...)...)
	return err
}

// Found says whether this machine has a command.
func Found(command string) bool { return find(command) != "" }
