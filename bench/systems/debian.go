package systems

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"culvert/bench/proc"
)

// maxConns is how many connections the plain proxies are prepared for: two descriptors each, below 20,000.
const maxConns = 9000

// ssh runs an sshd of its own, on loopback, with keys that live as long as the run. Its clients are this user.
func ssh() System {
	return System{
		Name:    SSH,
		Needs:   []string{"sshd", "ssh", "ssh-keygen"},
		Prepare: prepareSSH,
		Server:  func(p Place) []string { return []string{find("sshd"), "-D", "-e", "-f", p.Path("sshd_config")} },
		Client: func(p Place, _ int) []string {
			host, port, _ := net.SplitHostPort(p.Dial)
			return []string{
				"ssh", "-N", "-F", "none", "-i", p.Path("id"), "-c", "aes128-gcm@openssh.com", "-p", port,
				"-o", "UserKnownHostsFile=" + p.Path("known"), "-o", "ExitOnForwardFailure=yes", "-o", "IdentitiesOnly=yes",
				"-R", p.PublicAt() + ":" + p.Service, me() + "@" + host,
			}
		},
	}
}

func prepareSSH(ctx context.Context, p Place) error {
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // sshd's empty folder, which Debian's unit makes
			return err
		}
	}
	for _, key := range []string{"host", "id"} {
		if _, err := proc.Run(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", p.Path(key)); err != nil {
			return err
		}
	}
	hostKey, err := os.ReadFile(p.Path("host.pub"))
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(p.Dial)
	if err != nil {
		return err
	}
	if _, err := p.write("known", fmt.Sprintf("[%s]:%s %s", host, port, hostKey)); err != nil {
		return err
	}
	_, err = p.write("sshd_config", lines(
		"Port "+p.Tunnel, "ListenAddress "+p.Host, "HostKey "+p.Path("host"), "AuthorizedKeysFile "+p.Path("id.pub"),
		"StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin prohibit-password", "PidFile none",
		"AllowTcpForwarding yes", "GatewayPorts clientspecified", "UseDNS no", "MaxStartups 1000",
	))
	return err
}

// haproxy uses as many threads as there are cores, unless a line of its global section says otherwise.
func haproxy(name string, global ...string) System {
	return System{
		Name:  name,
		Needs: []string{"haproxy"},
		Prepare: func(_ context.Context, p Place) error {
			text := append([]string{"global", fmt.Sprintf(" maxconn %d", maxConns)}, global...)
			_, err := p.write("haproxy.cfg", lines(append(text,
				"defaults", " mode tcp", " timeout connect 5s", " timeout client 1h", " timeout server 1h",
				"listen bench", " bind "+p.PublicAt(), " server service "+p.Service,
			)...))
			return err
		},
		Server: func(p Place) []string { return []string{find("haproxy"), "-db", "-f", p.Path("haproxy.cfg")} },
	}
}

func nginx() System {
	return System{
		Name:  Nginx,
		Needs: []string{"nginx", streamModule},
		Prepare: func(_ context.Context, p Place) error {
			_, err := p.write("nginx.conf", lines(
				"load_module "+streamModule+";", "daemon off;", "worker_processes auto;",
				"pid "+p.Path("nginx.pid")+";", "error_log stderr;",
				fmt.Sprintf("events { worker_connections %d; }", 2*maxConns),
				"stream {",
				" server { listen "+p.PublicAt()+"; proxy_pass "+p.Service+"; }",
				" server { listen "+p.PublicAt()+" udp; proxy_pass "+p.Service+"; }",
				" server { listen "+p.TunnelAt()+" udp; proxy_pass "+p.Names+"; proxy_responses 1; }",
				"}",
			))
			return err
		},
		Server: func(p Place) []string {
			return []string{find("nginx"), "-e", "stderr", "-p", p.Dir, "-c", p.Path("nginx.conf")}
		},
	}
}

// NamesServer is the command of a server of names that knows one name, on loopback.
func NamesServer(port, name string) ([]string, error) {
	program := find("dnsmasq")
	if program == "" {
		return nil, errors.New("dnsmasq is missing")
	}
	return []string{
		program, "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--pid-file=", "--no-resolv", "--no-hosts",
		"--bind-interfaces", "--listen-address=127.0.0.1", "--port=" + port, "--address=/" + name + "/192.0.2.1", "--user=" + me(),
	}, nil
}

// streamModule is where Debian has nginx's TCP proxy.
const streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

// find gives a daemon's path, which an ordinary user's PATH may lack; empty if there is none.
func find(name string) string {
	if filepath.IsAbs(name) {
		if _, err := os.Stat(name); err != nil {
			return ""
		}
		return name
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if i, err := os.Stat(path); err == nil && !i.IsDir() {
			return path
		}
	}
	return ""
}

func me() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }
