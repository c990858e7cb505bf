package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lbFile is the smallest file of a load balancer.
const lbFile = `
entrypoints: [{name: web, addr: "127.0.0.1:80", routes: [{upstream: app}]}]
upstreams: [{name: app, members: [{address: "10.0.0.1:80"}]}]
`

// inFolder changes to a folder of its own and writes files there.
func inFolder(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// load loads a server's configuration as its command does.
func load(mode Mode, flags, env string) (Server, *Settings, error) {
	var s Server
	settings := Describe(&s, mode)
	s.Mode = mode
	for flag := range strings.FieldsSeq(flags) {
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		settings.Lookup(name).Set(value)
	}
	variables := map[string]string{"HOME": "/nowhere"}
	for pair := range strings.FieldsSeq(env) {
		name, value, _ := strings.Cut(pair, "=")
		variables[name] = value
	}
	err := Load(&s, settings, "CULVERT_SERVER", Environment{Lookup: lookup(variables)})
	return s, settings, err
}

func TestFlagThenEnvironmentThenFileThenDefault(t *testing.T) {
	inFolder(t, map[string]string{"f.yaml": `
control_port: 1001
port: 1002
health_addr: 127.0.0.1:1003
drain_timeout: 1s
allow_ips: [10.0.0.0/8, 192.168.0.0/16]
control_allow_ips: 127.0.0.1
auto_tls_san: [a.example.com]
allow_ports: [2222, 8000-8002]
lb_proxy_protocol: off
log_level: debug
token_file: of-the-file
`})
	s, _, err := load(Mixed, "--config=f.yaml --port=3002 --token="+testToken, "CULVERT_SERVER_PORT=2002 CULVERT_SERVER_HEALTH_ADDR=127.0.0.1:2003 CULVERT_SERVER_ALLOW_IPS=::1")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		what      string
		got, want any
	}{
		{"flag over environment and file", s.Port, uint16(3002)},
		{"environment over file", s.HealthAddr, "127.0.0.1:2003"},
		{"list of the environment over that of the file", len(s.AllowIPs), 1},
		{"file over default", s.ControlPort, uint16(1001)},
		{"time of the file", s.DrainTimeout, time.Second},
		{"one value for a list", len(s.ControlAllowIPs), 1},
		{"list over a default", slices.Equal(s.AutoTLSSAN, []string{"a.example.com"}), true},
		{"ports as a list", s.AllowPorts.String(), "2222,8000-8002"},
		{"off is nothing", s.LBProxyProtocol, ""},
		{"level", s.LogLevel.String(), "debug"},
		{"a flag hides its alternatives in the file", s.TokenFile, ""},
		{"default", s.ControlAddr, "0.0.0.0"},
	} {
		if one.got != one.want {
			t.Errorf("%s: got %v, want %v", one.what, one.got, one.want)
		}
	}
}

func TestTheVariableNamesTheFile(t *testing.T) {
	inFolder(t, map[string]string{"f.yaml": "control_port: 1001\ninsecure_no_auth: true\n"})
	s, _, err := load(Mixed, "", "CULVERT_SERVER_CONFIG=f.yaml")
	if err != nil || s.ControlPort != 1001 {
		t.Errorf("control port %d, error %v", s.ControlPort, err)
	}
}

func TestProblemsOfAFileNameThePlaceAndTheKey(t *testing.T) {
	for _, test := range []struct{ name, file, flags, want string }{
		{"a bad value", "port: 70000\ninsecure_no_auth: true", "", `f.yaml:1:7: port: "70000" is not a port; give a number from 0 (any free port) to 65535`},
		{"a bad value that a flag hides", "port: 70000\ninsecure_no_auth: true", "--port=1", ""},
		{"a contradiction within the file", "auto_tls: true\ntls_cert: a\ntls_key: b\ninsecure_no_auth: true", "--generate=systemd", "f.yaml:2:11: tls_cert: an own certificate is not used while auto-TLS is on; add auto_tls: false"},
		{"a contradiction with a flag", "tls_cert: a\ninsecure_no_auth: true", "--generate=systemd --auto-tls=false --tls-key=b --insecure-plaintext=true", "--insecure-plaintext: contradicts --tls-cert; leave one of the two out"},
		{"what is missing", "port: 80", "", "--token-file: a server needs a credential; give --token-file FILE, --tokens FILE, or --insecure-no-auth if you mean it"},
		{"two of a kind", "token: " + testToken + "\ntoken_env: X", "", "f.yaml:1:8: token: the token is given more than once, by token and token_env; keep one of them"},
		{"a list for one value", "port: [80, 81]\ninsecure_no_auth: true", "", "f.yaml:1:7: port: is more than one value; write one"},
		{"a key of no file", "print_config: true\ngenerate: systemd", "", "f.yaml:1:1: \"print_config\" is no key here; docs/configuration.md has all keys\nf.yaml:2:1: \"generate\" is no key here; docs/configuration.md has all keys"},
		{"a flag's fault and the file's", "nothing: 1", "--port=x", `--port: "x" is not a port; give a number from 0 (any free port) to 65535
f.yaml:1:1: "nothing" is no key here; docs/configuration.md has all keys`},
		{"an entrypoint on the HTTP port", "insecure_no_auth: true\nport: 80" + strings.Replace(lbFile, "127.0.0.1", "", 1), "", "f.yaml:3:33: entrypoints[0].addr: :80 collides with 0.0.0.0:80, the HTTP port (port); give one of them another port or address"},
		{"an entrypoint on the TLS port", "insecure_no_auth: true\ntls_port: 80" + lbFile, "", "f.yaml:3:33: entrypoints[0].addr: 127.0.0.1:80 collides with 0.0.0.0:80, the TLS port (tls_port); give one of them another port or address"},
		{"the entrypoint that the TLS port opens", "insecure_no_auth: true\ntls_port: 80" + strings.Replace(lbFile, "name: web", "name: tls, protocol: tls", 1), "", ""},
		{"a secret is never quoted", "token: {a: canary}\nport: canary2\ninsecure_no_auth: true", "", "f.yaml:1:8: token: is more than one value; write one\nf.yaml:2:7: port: \"canary2\" is not a port; give a number from 0 (any free port) to 65535"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inFolder(t, map[string]string{"f.yaml": test.file})
			_, _, err := load(Mixed, "--config=f.yaml "+test.flags, "")
			got := ""
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
			if strings.Contains(got, "canary}") {
				t.Errorf("a secret is told: %s", got)
			}
		})
	}
}

func TestALoadBalancerHasAControlPortOnlyForClientsThatItKnows(t *testing.T) {
	inFolder(t, map[string]string{"lb.yaml": lbFile, "token": testToken + "\n", "none.yaml": "drain_timeout: 1s\n", "tunnel.yaml": strings.Replace(lbFile, "upstream: app", "upstream: name/laptop", 1) + "port: 1\n"})
	for _, test := range []struct {
		name, flags string
		control     bool
		want        string
	}{
		{"no token", "--config=lb.yaml", false, ""},
		{"a token", "--config=lb.yaml --token-file=token", true, ""},
		{"no token on purpose", "--config=lb.yaml --insecure-no-auth=true", true, ""},
		{"no file", "", false, "--config: a load balancer needs a file of entrypoints and upstreams; give --config culvert.yaml; docs/configuration.md has its keys"},
		{"a file without entrypoints", "--config=none.yaml", false, "none.yaml:1:1: has no entrypoint, so nobody could connect; add entrypoints: and upstreams:"},
	} {
		s, _, err := load(LB, test.flags, "")
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != test.want || s.HasControl() != test.control {
			t.Errorf("%s: control port %v, error %s", test.name, s.HasControl(), got)
		}
	}
	s, _, err := load(LB, "--config=tunnel.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	for _, w := range s.Warnings {
		warnings = append(warnings, w.Error())
	}
	want := []string{
		`tunnel.yaml:2:1: the tunnel name/laptop has no members ever: without a token no client can connect; add token_file: FILE, or give members with an address`,
		`tunnel.yaml:3:20: upstreams[0].name: no route goes to the upstream "app"; leave it out, or name it in a route`,
		"tunnel.yaml:4:7: port: has no effect; it is not for culvert lb",
	}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestWhatIsPrintedIsReadAgain(t *testing.T) {
	inFolder(t, map[string]string{"f.yaml": "token: " + testToken + "\nallow_ips: 10.0.0.0/8\ndrain_timeout: 0s\nauto_tls_san: [example.com]" + lbFile})
	first, settings, err := load(Mixed, "--config=f.yaml --allow-ports=2222,8000-8100 --log-level=mux=debug,warn", "CULVERT_SERVER_PORT=1234")
	if err != nil {
		t.Fatal(err)
	}
	text, err := first.Print(settings)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"token: '***'\n", "port: 1234 # CULVERT_SERVER_PORT\n", "allow_ports: 2222,8000-8100 # --allow-ports\n", "allow_ips: [10.0.0.0/8]\n",
		"drain_timeout: 0s\n", "auto_tls: true\n", "auto_tls_san: [example.com]\n", "log_level: mux=debug,warn # --log-level\n", "\nentrypoints:\n  - name: web\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(text, testToken) || strings.Contains(text, "print_config") {
		t.Error("a secret, or what is no key, is printed")
	}
	if t.Failed() {
		t.Log(text)
	}
	if err := os.WriteFile("printed.yaml", []byte(strings.Replace(text, "'***'", testToken, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	second, again, err := load(Mixed, "--config=printed.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first.Plan, second.Plan) {
		t.Error("the data plane is another")
	}
	for i, one := range again.all {
		if one.Key == "" {
			continue
		}
		if got, want := display(one.target), display(settings.all[i].target); got != want {
			t.Errorf("%s: %s, then %s", one.Key, want, got)
		}
	}
}

// What is printed passes the check and comes to the same, whatever the kind of server and of configuration.
func TestEveryConfigurationIsPrintedAndReadAgain(t *testing.T) {
	files := map[string]string{"token": testToken + "\n", "plain.yaml": lbFile, "control.yaml": "token_file: token\ncontrol_port: 1001\n" + lbFile}
	type line struct {
		mode  Mode
		flags string
	}
	lines := []line{
		{LB, "--config=plain.yaml"},
		{LB, "--config=plain.yaml --control-port=99 --auto-tls-san=a.example.com --drain-timeout=1m30s"},
		{LB, "--config=plain.yaml --token=" + testToken + " --control-port=99"},
		{LB, "--config=plain.yaml --insecure-no-auth=true --allow-ips=10.0.0.0/8,::1 --access-log=- --access-log-format=json"},
		{LB, "--config=control.yaml --max-unauthenticated=7 --log-level=mux=debug,warn --health-addr=:8081"},
		{Mixed, "--config=control.yaml --data-addr=[::1] --tls-port=8443 --lb-proxy-protocol=auto --lb-trusted=10.0.0.5"},
		{Mixed, "--token=" + testToken + " --port=0 --proxy-protocol=v2 --ready-grace=0s --connection-records=0"},
		{HTTP, "--token-file=token --auto-tls=false --insecure-plaintext=true --control-allow-ips=192.0.2.0/24"},
		{TCP, "--insecure-no-auth=true --allow-ports=22,8000-8100 --data-allow-ips=2001:db8::/32"},
		{TCP, "--token-env=TOKEN --log-format=json --auto-tls-path=/some/folder"},
	}
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("examples %v, error %v", examples, err)
	}
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		files[name] = string(text)
		lines = append(lines, line{LB, "--config=" + name}, line{Mixed, "--token-file=token --config=" + name})
	}
	inFolder(t, files)
	for _, one := range lines {
		t.Run(string(one.mode)+" "+one.flags, func(t *testing.T) {
			first, settings, err := load(one.mode, one.flags, "TOKEN="+testToken)
			if err != nil {
				t.Fatal(err)
			}
			text, err := first.Print(settings)
			if err != nil {
				t.Fatal(err)
			}
			printed := func(text string) {
				if err := os.WriteFile("printed.yaml", []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			printed(text)
			env := Environment{Lookup: lookup(map[string]string{"TOKEN": testToken})}
			if _, err := CheckFile("printed.yaml", false, env); err != nil {
				t.Errorf("it does not pass the check: %v\n%s", err, text)
			}
			printed(strings.Replace(text, "'***'", testToken, 1))
			second, again, err := load(one.mode, "--config=printed.yaml", "TOKEN="+testToken)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if !reflect.DeepEqual(first.Plan, second.Plan) || first.HasControl() != second.HasControl() {
				t.Errorf("the data plane is another, or only one has a control port: %t, %t\n%s", first.HasControl(), second.HasControl(), text)
			}
			for i, s := range again.all {
				if s.Key == "" || s.Needs == "control" && !first.HasControl() {
					continue
				}
				if got, want := display(s.target), display(settings.all[i].target); got != want {
					t.Errorf("%s: %s, then %s", s.Key, want, got)
				}
			}
		})
	}
}

func TestALoadBalancerWithoutAControlPortSaysSo(t *testing.T) {
	inFolder(t, map[string]string{"f.yaml": "control_port: 1001\n" + lbFile})
	s, settings, err := load(LB, "--config=f.yaml --auto-tls-san=a.example.com", "CULVERT_SERVER_ALLOW_PORTS=22")
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	for _, w := range s.Warnings {
		warnings = append(warnings, w.Error())
	}
	const why = ": has no effect: without a token there is no control port; add token_file: FILE"
	if diff := cmp.Diff([]string{"--auto-tls-san" + why, "CULVERT_SERVER_ALLOW_PORTS" + why, "f.yaml:1:15: control_port" + why}, warnings); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	if text, err := s.Print(settings); err != nil || strings.Contains(text, "control") || strings.Contains(text, "tls") {
		t.Errorf("error %v, printed a control port that there is none of\n%s", err, text)
	}
}

func TestEntrypointsThatExpectNoHeaderAreNamed(t *testing.T) {
	const entrypoints = `
entrypoints:
- {name: silent, addr: ":81", routes: [{upstream: app}]}
- {name: off, addr: ":82", proxy_protocol: off, routes: [{upstream: app}]}
- {name: auto, addr: ":83", proxy_protocol: {accept: auto, trusted: [10.0.0.5]}, routes: [{upstream: app}]}
- {name: dns, protocol: udp, addr: ":84", routes: [{upstream: app}]}
upstreams: [{name: app, members: [{address: "10.0.0.1:80"}]}]
`
	inFolder(t, map[string]string{"f.yaml": entrypoints, "g.yaml": "lb_proxy_protocol: auto" + entrypoints})
	for config, want := range map[string]string{
		"f.yaml": "", "g.yaml": "g.yaml:3:3: entrypoints[0]: expects no PROXY header: lb_proxy_protocol is for the ports that no file describes; " +
			"add proxy_protocol: {accept: auto, trusted: [CIDR]}, or proxy_protocol: off",
	} {
		s, err := CheckFile(config, false, Environment{})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Warnings.Error(); got != want {
			t.Errorf("%s: got %s\nwant %s", config, got, want)
		}
	}
}

// A printed configuration cannot be run by mistake with the mask for a token.
func TestTheMaskIsNoToken(t *testing.T) {
	inFolder(t, map[string]string{"f.yaml": "token: '***'\n" + lbFile})
	const fault = "is the mask of a printed configuration, and no token; put the token in its place, or token_file: FILE"
	if _, _, err := load(LB, "--config=f.yaml", ""); err == nil || err.Error() != "f.yaml:1:8: token: "+fault {
		t.Errorf("run: got %v", err)
	}
	s, err := CheckFile("f.yaml", false, Environment{})
	if err != nil || len(s.Warnings) != 1 || s.Warnings[0].Error() != "f.yaml:1:8: token: "+fault {
		t.Errorf("checked: error %v, warnings %v", err, s.Warnings)
	}
}

func TestReread(t *testing.T) {
	inFolder(t, map[string]string{"f.yaml": lbFile + "control_port: 1001\nport: 1002\n", "token": testToken + "\n"})
	s, _, err := load(Mixed, "--config=f.yaml --token-file=token --port=3002", "CULVERT_SERVER_HEALTH_ADDR=127.0.0.1:2003")
	if err != nil {
		t.Fatal(err)
	}
	reread := func(content string) (Server, []string, error) {
		if err := os.WriteFile("f.yaml", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.Reread()
	}

	next, changed, err := reread(lbFile + "control_port: 1001\nport: 1002\n")
	if err != nil || len(changed) > 0 || !reflect.DeepEqual(next.Plan, s.Plan) {
		t.Errorf("the same file: changed %v, error %v", changed, err)
	}

	next, changed, err = reread(strings.Replace(lbFile, "10.0.0.1:80", "10.0.0.2:80", 1) + "control_port: 1009\nport: 1003\nhealth_addr: 127.0.0.1:1\n")
	if err != nil || !slices.Equal(changed, []string{"control_port"}) {
		t.Errorf("changed %v, want control_port alone: flag and environment win; error %v", changed, err)
	}
	if next.Port != 3002 || next.HealthAddr != "127.0.0.1:2003" || next.TokenFile != "token" || next.Token.Reveal() != testToken {
		t.Error("flags or environment are lost")
	}
	if got := next.Plan.Upstreams[0].Members[0].Address; got != "10.0.0.2:80" || s.Plan.Upstreams[0].Members[0].Address != "10.0.0.1:80" {
		t.Errorf("the new member is %s", got)
	}
	if _, changed, err := next.Reread(); err != nil || len(changed) > 0 {
		t.Errorf("read once more: changed %v, error %v", changed, err)
	}

	// A file that is wrong, or being written just now, leaves the old configuration alone.
	for _, content := range []string{"", "entrypoints:\n  - name", lbFile + "control_port: x\n"} {
		if _, _, err := reread(content); err == nil {
			t.Errorf("no error for %q", content)
		}
	}
	if err := os.Remove(filepath.Clean("f.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Reread(); err == nil || !strings.Contains(err.Error(), "f.yaml: there is no such file") {
		t.Errorf("a file that has gone: %v", err)
	}
}

func TestAUnitNeedsNoFileHere(t *testing.T) {
	inFolder(t, nil)
	if _, _, err := load(LB, "--config=/etc/culvert/culvert.yaml --generate=systemd", ""); err != nil {
		t.Error(err)
	}
}

// A balancer without clients has no control port, so that the port is free for others.
func TestABalancerWithoutClientsLeavesTheControlPortToOthers(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("culvert.yaml", []byte(lbFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := load(LB, "--config=culvert.yaml --health-addr=127.0.0.1:8123", ""); err != nil {
		t.Errorf("without a token: %v", err)
	}
	_, _, err := load(LB, "--config=culvert.yaml --health-addr=127.0.0.1:8123 --token="+testToken, "")
	if err == nil || !strings.Contains(err.Error(), "8123 is the control port") {
		t.Errorf("with a token: %v", err)
	}
}

// What clients may not open is what the settings open, and nothing of what they do not.
func TestOwnPorts(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("culvert.yaml", []byte(lbFile), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		mode  Mode
		flags string
		want  map[uint16]string
	}{
		{Mixed, "--token=" + testToken + " --control-port=1 --port=2 --tls-port=3 --health-addr=[::1]:4", map[uint16]string{
			1: "the control port (control_port)", 2: "the HTTP port (port)", 4: "the health port (health_addr)",
		}},
		{TCP, "--token=" + testToken + " --control-port=1", map[uint16]string{1: "the control port (control_port)"}},
		{LB, "--config=culvert.yaml", map[uint16]string{}},
	} {
		cfg, _, err := load(test.mode, test.flags, "")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, cfg.OwnPorts()); diff != "" {
			t.Errorf("%s: want, got:\n%s", test.flags, diff)
		}
	}
}
