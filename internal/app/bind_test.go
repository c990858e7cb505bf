package app

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/config"
)

// loaded is a configuration as the command line makes it.
func loaded(t *testing.T, mode config.Mode, env map[string]string, flags ...string) config.Server {
	t.Helper()
	var cfg config.Server
	settings := config.Describe(&cfg, mode)
	cfg.Mode = mode
	for _, f := range flags {
		name, value, _ := strings.Cut(f, "=")
		settings.Lookup(name).Set(value)
	}
	err := config.Load(&cfg, settings, "CULVERT_TEST", config.Environment{Lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// An address that cannot be listened on is told by the flag, variable or key that has asked for it, with what to do.
func TestWhyAnAddressCannotBeListenedOn(t *testing.T) {
	const lacking = "192.0.2.1" // for documentation: no machine has it
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	taken, takenUDP := tcp.Addr().String(), udp.LocalAddr().String()
	_, port, _ := net.SplitHostPort(taken)
	dir := t.TempDir()
	file := filepath.Join(dir, "culvert.yaml")
	text := "entrypoints:\n- name: devices\n  addr: " + taken + "\n  routes: [{upstream: app}]\n- {name: dns, protocol: udp, addr: \"" + takenUDP +
		"\", routes: [{upstream: app}]}\n- {name: away, addr: \"" + lacking + ":2323\", routes: [{upstream: app}]}\nupstreams: [{name: app, members: [{address: 127.0.0.1:1}]}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const mend = "address already in use by this program itself; end that program, or give another port"
	common := []string{"insecure-no-auth=true", "auto-tls-path=" + dir, "auto-tls-san=localhost", "data-addr=127.0.0.1", "control-addr=127.0.0.1"}
	for _, tt := range []struct {
		name  string
		mode  config.Mode
		flags []string
		env   map[string]string
		want  []string // one for each line
	}{
		{"the HTTP port by a flag", config.HTTP, []string{"port=" + port, "control-port=0"}, nil, []string{"--port: listen " + taken + ": " + mend}},
		{"the control port by the environment", config.TCP, nil, map[string]string{"CULVERT_TEST_CONTROL_PORT": port}, []string{
			"CULVERT_TEST_CONTROL_PORT: listen " + taken + ": " + mend,
		}},
		{"the health port", config.TCP, []string{"control-port=0", "health-addr=" + taken}, nil, []string{"--health-addr: listen " + taken + ": " + mend}},
		{"the TLS port", config.TCP, []string{"control-port=0", "tls-port=" + port}, nil, []string{"--tls-port: listen " + taken + ": " + mend}},
		{"every address, of which one is taken", config.TCP, []string{"control-port=0", "health-addr=:" + port}, nil, []string{
			"--health-addr: listen :" + port + ": address already in use by this program itself on " + taken + "; end that program, or give another port, or one address of this machine instead of all",
		}},
		{"an address of another machine", config.TCP, []string{"control-port=0", "health-addr=" + lacking + ":2323"}, nil, []string{
			"--health-addr: listen " + lacking + ":2323: cannot assign requested address, as no interface of this machine has " + lacking + "; give one that it has, or 0.0.0.0 for all of them; " +
				"for an address that comes later, as with keepalived, set the sysctl net.ipv4.ip_nonlocal_bind=1",
		}},
		{"entrypoints of the file", config.LB, []string{"config=" + file, "control-port=0"}, nil, []string{
			file + ":3:9: entrypoints[0].addr: listen " + taken + " for entrypoint devices: " + mend,
			file + ":5:36: entrypoints[1].addr: listen " + takenUDP + " for entrypoint dns: " + mend,
			file + ":6:22: entrypoints[2].addr: listen " + lacking + ":2323 for entrypoint away: cannot assign requested address",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewServer(loaded(t, tt.mode, tt.env, append(tt.flags, common...)...), Version{}, discard)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Listen()
			if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
				t.Fatalf("got %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			for i, want := range tt.want {
				if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
					t.Errorf("got\n%s\nwant line %d to begin with\n%s", err, i+1, want)
				}
			}
		})
	}
}

// A test that is root may listen anywhere, so the failure is made by hand.
func TestAPortThatNeedsAPrivilege(t *testing.T) {
	b := binding{network: "tcp", addr: ":23", askedPort: "--port", asked: "--data-addr"}
	got := b.explain(&net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}).Error()
	for _, want := range []string{"--port: listen :23: permission denied, as a port below " + strconv.Itoa(unprivileged()), "AmbientCapabilities=CAP_NET_BIND_SERVICE", "setcap cap_net_bind_service=+ep "} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s\nwant it to say %q", got, want)
		}
	}
	b.addr = ":2323"
	if got := b.explain(os.NewSyscallError("bind", syscall.EACCES)).Error(); got != "--port: bind: permission denied" {
		t.Errorf("a high port: got %s", got)
	}
}

func TestTheKernelsAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"00000000:1F90": "0.0.0.0:8080", "00000000000000000000000000000000:0016": "[::]:22",
		"": "invalid AddrPort", "zz": "invalid AddrPort", "0000:0016": "invalid AddrPort", "0000000000000000:0016": "invalid AddrPort",
	} {
		got, ok := kernelAddr(text)
		if s := got.String(); ok && s != want || !ok && want != "invalid AddrPort" {
			t.Errorf("%q: got %s, %v, want %s", text, s, ok, want)
		}
	}
}
