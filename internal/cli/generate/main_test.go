package generate

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/config"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing")

// canary is in every secret that the tests give. It must come out nowhere.
const canary = "canary-canary-canary"

// golden compares with a file of testdata, or writes it under -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%s (go test ./internal/cli/generate -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: want -, got +\n%s", path, diff)
	}
}

// write generates for a command line: "http server --port=80 …".
func write(t testing.TB, o Options, form string, line ...string) (Result, error) {
	t.Helper()
	o.Words = nil
	var flags []string
	for _, word := range line {
		if strings.HasPrefix(word, "--") {
			flags = append(flags, word)
		} else {
			o.Words = append(o.Words, word)
		}
	}
	flags = append(flags, "--generate="+form)
	mode := config.Mixed
	switch o.Words[0] {
	case "http":
		mode = config.HTTP
	case "tcp":
		mode = config.TCP
	case "lb":
		mode = config.LB
	}
	switch o.Words[len(o.Words)-1] {
	case "server", "lb":
		cfg := config.Server{Mode: mode}
		settings := config.Describe(&cfg, mode)
		resolve(t, settings, &cfg, flags)
		return Server(cfg, settings, o)
	case "client":
		cfg := config.Client{Mode: mode}
		settings := config.Describe(&cfg, mode)
		resolve(t, settings, &cfg, flags)
		return Client(cfg, settings, o)
	}
	var cfg config.Fileserver
	settings := config.Describe(&cfg, "")
	resolve(t, settings, &cfg, flags)
	return Fileserver(cfg, settings, o)
}

func resolve(t testing.TB, settings *config.Settings, cfg config.Resolver, flags []string) {
	t.Helper()
	for _, f := range flags {
		name, value, ok := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		if !ok {
			value = "true"
		}
		settings.Lookup(name).Set(value)
	}
	none := func(string) (string, bool) { return "", false }
	if err := config.Load(cfg, settings, "CULVERT", config.Environment{Lookup: none}); err != nil {
		t.Skip(err) // a fuzzer's values; the golden cases are checked to have output
	}
}

func options() Options { return Options{Dir: "/home/op/tunnel", Version: "1.2.3"} }

// goldenCases are the command lines whose output is pinned, by the name of their files.
func goldenCases() map[string][]string {
	return map[string][]string{
		"http-server": {"http", "server", "--token=" + canary, "--auto-tls-san=tunnel.example.com", "--data-addr=127.0.0.1:"},
		"http-server-low-port": {
			"http", "server", "--port=80", "--control-port=443", "--token-file=token", "--auto-tls=false",
			"--tls-cert=/etc/ssl/culvert.crt", "--tls-key=/etc/ssl/culvert.key", "--health-addr=:8081", "--generate-name=edge",
		},
		"tcp-server":         {"tcp", "server", "--token-env=TOKEN", "--allow-ports=2222,8000-8002", "--drain-timeout=2m"},
		"server":             {"server", "--tokens=tokens.yaml", "--allow-ips=10.0.0.0/8,::1", "--log-format=json"},
		"lb":                 {"lb", "--config=testdata/lb.config", "--health-addr=:8081"},
		"lb-elsewhere":       {"lb", "--config=/srv/balancer/culvert.yaml"},
		"server-config":      {"server", "--config=testdata/server.config", "--log-format=json"},
		"server-open":        {"server", "--insecure-no-auth", "--auto-tls=false", "--insecure-plaintext"},
		"http-client":        {"http", "client", "--url=wss://tunnel.example.com:8123", "--token=" + canary, "--upstream=app.example.com=http://127.0.0.1:3000"},
		"tcp-client":         {"tcp", "client", "--url=wss://a:8123,wss://b:8123", "--upstream=192.168.1.12", "--ports=22,80", "--generate-name=home", "--drain-timeout=5m"},
		"client-odd-strings": {"client", "--url=wss://a", "--upstream=http://b", "--auto-tls=false", "--tls-ca=my ca.pem", `--label=a=50% of $HOME $(ID) "x" \ ; 'y' é`},
	}
}

func TestGoldenUnits(t *testing.T) {
	cases := goldenCases()
	cases["fileserver"] = []string{"fileserver", "--webroot=site", "--allow-browsing", "--basic-auth-password=" + canary}
	cases["client-folder"] = []string{"client", "--url=wss://a", "--upstream=a=file:/srv/www", "--state-dir=/var/lib/culvert-home"}
	for name, line := range cases {
		t.Run(name, func(t *testing.T) {
			result, err := write(t, options(), "systemd", line...)
			checkResult(t, result, err)
			golden(t, name+".service", result.Text)
			golden(t, name+".service.notes", strings.Join(result.Notes, "\n")+"\n")
		})
	}
}

func TestGoldenManifests(t *testing.T) {
	for name, line := range goldenCases() {
		t.Run(name, func(t *testing.T) {
			result, err := write(t, options(), "k8s_yaml", line...)
			checkResult(t, result, err)
			golden(t, name+".yaml", result.Text)
		})
	}
}

func checkResult(t *testing.T, result Result, err error) {
	t.Helper()
	if err != nil || result.Text == "" {
		t.Fatalf("no output: %v", err)
	}
	if strings.Contains(result.Text+strings.Join(result.Notes, ""), canary) {
		t.Error("a secret is in the output")
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name, form string
		line       []string
		want       string
	}{
		{"a folder in a cluster", "k8s_yaml", []string{"fileserver"}, "a folder of this machine cannot be served from a Kubernetes cluster; use --generate systemd"},
		{"state outside of /var/lib", "systemd", []string{"http", "server", "--auto-tls-path=/srv/state"}, "--auto-tls-path: a unit keeps its state below /var/lib; leave the flag out, or name a folder there"},
		{"a relative upstream folder", "systemd", []string{"client", "--url=wss://a", "--upstream=file:site"}, "--upstream: file:site is relative; give the whole path"},
		{"a quote in a path", "systemd", []string{"server", `--token-file=/a"b`}, `file "/a\"b": ` + errPath.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := write(t, options(), test.form, test.line...)
			if err == nil || err.Error() != test.want {
				t.Errorf("\n got %v\nwant %s", err, test.want)
			}
		})
	}
}
