//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Debian's servers, each on a free port of the loopback interface with a folder of its own. They end with the test.

// write makes a file in dir and returns its path.
func write(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// ownedDir makes a folder for a server that must not or need not run as root, and the user to run it as.
func ownedDir(t *testing.T) (dir string, as *syscall.Credential) {
	t.Helper()
	if os.Geteuid() != 0 {
		return t.TempDir(), nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid) // numbers on Linux
	gid, _ := strconv.Atoi(nobody.Gid)
	// Not below t.TempDir, which only root may enter.
	dir, err = os.MkdirTemp("", "culvert-e2e-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// accepts waits until a connection to the address is accepted.
func accepts(t *testing.T, network, addr string) {
	t.Helper()
	eventually(t, patience, "connect to "+addr, func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

func startRedis(t *testing.T) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	start(t, program{argv: []string{
		"redis-server", "--bind", "127.0.0.1", "--port", port(t, addr), "--save", "", "--appendonly", "no",
	}}).line(t, `Ready to accept connections`)
	return addr
}

// startPostgres starts a server with a user "culvert" that needs no password.
func startPostgres(t *testing.T) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	dir, as := ownedDir(t)
	data := filepath.Join(dir, "data")
	must(t, program{
		argv: []string{"initdb", "--pgdata", data, "--username", "culvert", "--auth", "trust", "--no-sync", "--encoding", "UTF8"},
		dir:  dir, user: as,
	})
	start(t, program{
		argv: []string{
			"postgres", "-D", data, "-p", port(t, addr), "-k", dir,
			"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=100",
		},
		dir: dir, user: as,
	}).line(t, `database system is ready to accept connections`)
	return addr
}

// sshd is a running OpenSSH server and what a client needs to log in to it.
type sshd struct {
	addr       string
	key        string // file of the user's private key
	user       string
	knownHosts func(t *testing.T, addr string) (file string) // the server's key, as if it were at another address
}

func startSSHD(t *testing.T) sshd {
	t.Helper()
	addr := freeAddr(t)
	dir := t.TempDir()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // where Debian's sshd drops its privileges; made by its service, which does not run
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	hostKey, userKey := filepath.Join(dir, "host"), filepath.Join(dir, "user")
	for _, key := range []string{hostKey, userKey} {
		must(t, program{argv: []string{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key}})
	}
	config := write(t, dir, "sshd_config", strings.Join([]string{
		"ListenAddress " + addr,
		"HostKey " + hostKey,
		"AuthorizedKeysFile " + userKey + ".pub",
		"PermitRootLogin prohibit-password", "PasswordAuthentication no", "UsePAM no", "StrictModes no",
		"PidFile none", "Subsystem sftp internal-sftp", "",
	}, "\n"), 0o600)
	start(t, program{argv: []string{path("sshd"), "-D", "-e", "-f", config}}).line(t, `Server listening on`)
	return sshd{
		addr: addr, key: userKey, user: me.Username,
		knownHosts: func(t *testing.T, addr string) string {
			t.Helper()
			public, err := os.ReadFile(hostKey + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			host, p, _ := net.SplitHostPort(addr)
			return write(t, t.TempDir(), "known_hosts", fmt.Sprintf("[%s]:%s %s", host, p, public), 0o600)
		},
	}
}

// login is where ssh and scp find the server, and the options with which they get in.
func (s sshd) login(t *testing.T, addr string) (host string, options []string) {
	t.Helper()
	host, p, _ := net.SplitHostPort(addr)
	return host, []string{
		"-F", "none", "-i", s.key, "-o", "Port=" + p, "-o", "User=" + s.user, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
		"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + s.knownHosts(t, addr),
	}
}

// startNginx serves root's files, and answers /plain with 200 and /missing with 404.
func startNginx(t *testing.T, root string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	dir := t.TempDir()
	who := ""
	if os.Geteuid() == 0 { // the workers must read what only root may enter
		who = "user root;"
	}
	config := write(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off; %s pid %[2]s/pid; error_log stderr notice; worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off; default_type text/plain; keepalive_requests 100000;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
  uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  server {
    listen %[3]s; root %[4]s; etag on; gzip on; gzip_types text/plain; gzip_min_length 100;
    location = /plain { return 200 "plain $host\n"; }
  }
}
`, who, dir, addr, root), 0o600)
	start(t, program{argv: []string{"nginx", "-p", dir, "-e", "stderr", "-c", config}})
	accepts(t, "tcp", addr)
	return addr
}

// startPrometheus runs Prometheus with a configuration file in dir.
func startPrometheus(t *testing.T, dir, config string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	start(t, program{argv: []string{
		"prometheus", "--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
		"--web.listen-address=" + addr,
	}, dir: dir}).line(t, `Server is ready to receive web requests`)
	return addr
}

// startHAProxy runs HAProxy with the sections given, after sensible defaults.
func startHAProxy(t *testing.T, sections string) *process {
	t.Helper()
	config := write(t, t.TempDir(), "haproxy.cfg", `
global
  maxconn 1000
  log stdout format raw local0 info
defaults
  log global
  timeout connect 2s
  timeout client 30s
  timeout server 30s
`+sections, 0o600)
	return start(t, program{argv: []string{"haproxy", "-db", "-f", config}})
}
