package config

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/auth"
)

// every is one of each configuration, with its settings.
func every() map[string]*Settings {
	return map[string]*Settings{
		"server": Describe(new(Server), Mixed), "http server": Describe(new(Server), HTTP), "tcp server": Describe(new(Server), TCP),
		"client": Describe(new(Client), Mixed), "http client": Describe(new(Client), HTTP), "tcp client": Describe(new(Client), TCP),
		"fileserver": Describe(new(Fileserver), ""), "status": Describe(new(Status), ""), "divert list": Describe(new(Question), ""), "explain": Describe(new(Explain), ""), "member drain": Describe(new(MemberDrain), ""),
		"divert": Describe(new(Divert), ""), "reload": Describe(new(Order), ""), "lb": Describe(new(Server), LB), "demo": Describe(new(Demo), ""),
		"token new": Describe(new(TokenNew), ""), "token list": Describe(new(TokenList), ""), "token revoke": Describe(new(TokenRevoke), ""),
	}
}

func TestSettingsAreDescribedInFull(t *testing.T) {
	for command, settings := range every() {
		seen := map[string]bool{"help": true, "h": true}
		for _, s := range settings.All() {
			for _, name := range []string{s.Flag, s.Short, s.Alias, s.Old} {
				if name != "" && seen[name] {
					t.Errorf("%s: -%s is there twice", command, name)
				}
				seen[name] = name != ""
			}
			if s.Bool() == (s.Unit != "") {
				t.Errorf("%s: --%s: unit %q: every flag but a switch has one", command, s.Flag, s.Unit)
			}
			if strings.HasSuffix(s.Help, ".") || strings.ToLower(s.Help[:1]) != s.Help[:1] && s.Help[:4] != "TCP " && s.Help[:3] != "CA " {
				t.Errorf("%s: --%s: help %q: begins small and has no full stop", command, s.Flag, s.Help)
			}
			if s.Repeatable() && !strings.Contains(s.Help+s.Unit, "repeatable") && s.Unit != "PORTS" {
				t.Errorf("%s: --%s: help does not say that it is repeatable", command, s.Flag)
			}
		}
	}
}

func TestValues(t *testing.T) {
	type all struct {
		Text     string            `flag:"text" group:"g" help:"h" default:"d"`
		Switch   bool              `flag:"switch" group:"g" help:"h"`
		Count    int               `flag:"count" group:"g" help:"h"`
		Port     uint16            `flag:"port" group:"g" help:"h"`
		Time     time.Duration     `flag:"time" group:"g" help:"h"`
		List     []string          `flag:"list" group:"g" help:"h" default:"a,b"`
		Prefixes []netip.Prefix    `flag:"prefixes" group:"g" help:"h"`
		Ports    []uint16          `flag:"ports" group:"g" help:"h"`
		Labels   map[string]string `flag:"labels" group:"g" help:"h"`
		Set      auth.Ports        `flag:"set" group:"g" help:"h" default:"1-9"`
		Choice   string            `flag:"choice" group:"g" help:"h" values:"x y" default:"x"`
		Level    LogLevel          `flag:"level" group:"g" help:"h"`
		Secret   auth.Secret       `flag:"secret" group:"g" help:"h"`
	}
	for _, test := range []struct {
		flag  string
		given []string
		want  string // the field, or the error
	}{
		{"text", []string{"a", "b"}, "b"},
		{"text", []string{""}, "--text: is empty; give it a value or leave it out"},
		{"text", []string{"a\nb"}, "--text: holds a line break or another control character"},
		{"switch", []string{"true"}, "true"},
		{"switch", []string{"maybe"}, `--switch: "maybe" is neither true nor false; write one of them`},
		{"count", []string{"12"}, "12"},
		{"count", []string{"1.5"}, `--count: "1.5" is not a whole number; write digits alone`},
		{"port", []string{"65535"}, "65535"},
		{"port", []string{"65536"}, `--port: "65536" is not a port; give a number from 0 (any free port) to 65535`},
		{"port", []string{"-1"}, `--port: "-1" is not a port; give a number from 0 (any free port) to 65535`},
		{"time", []string{"90s"}, "1m30s"},
		{"time", []string{"2d"}, "48h0m0s"},
		{"time", []string{"-1s"}, `--time: "-1s" is not a duration; write it as in 500ms, 30s, 5m, 12h or 90d`},
		{"list", nil, "[a b]"},
		{"list", []string{"x", "y, z"}, "[x y z]"},
		{"list", []string{"x,"}, `--list: "x," has an empty item; separate items by one comma`},
		{"prefixes", []string{"10.1.2.3/8", "::1,1.2.3.4"}, "[10.0.0.0/8 ::1/128 1.2.3.4/32]"},
		{"prefixes", []string{"::ffff:10.1.2.3/104"}, "[10.0.0.0/8]"},
		{"prefixes", []string{"10.0.0.0/33"}, `--prefixes: "10.0.0.0/33" is neither an address nor a CIDR; write it as in 10.0.0.0/8 or 2001:db8::/32`},
		{"ports", []string{"80,443", "8000-8002"}, "[80 443 8000 8001 8002]"},
		{"ports", []string{"65534-65535"}, "[65534 65535]"},
		{"ports", []string{"9-8"}, `--ports: "9-8" is not a range of 1 to 1024 ports`},
		{"ports", []string{"1-65535"}, `--ports: "1-65535" is not a range of 1 to 1024 ports`},
		{"labels", []string{"a=1,b=2", "a=3"}, "map[a:3 b:2]"},
		{"labels", []string{"a"}, `--labels: "a" is not a label; write KEY=VALUE, the key of letters, digits, '.', '-' and '_'`},
		{"set", []string{"22", "80"}, "22,80"},
		{"choice", []string{"z"}, `--choice: "z" is unknown; use x or y`},
		{"level", []string{"mux=debug,warn"}, "mux=debug,warn"},
		{"level", []string{"loud"}, `--level: "loud" is not a level; use debug, info, warn or error, or as in mux=debug,info`},
		{"secret", []string{"hunter2"}, "***"},
		{"secret", []string{"hunter2\r"}, "--secret: holds a line break or another control character"},
	} {
		t.Run(test.flag+"="+strings.Join(test.given, ";"), func(t *testing.T) {
			var cfg all
			settings := Describe(&cfg, "")
			s := settings.Lookup(test.flag)
			for _, raw := range test.given {
				s.Set(raw)
			}
			got := display(s.target)
			if err := settings.Check(nil); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestFlagThenEnvironmentThenDefault(t *testing.T) {
	env := Environment{Lookup: lookup(map[string]string{
		"CULVERT_SERVER_PORT": "1111", "CULVERT_SERVER_CONTROL_PORT": "2222", "CULVERT_SERVER_DATA_ADDR": "",
		"CULVERT_SERVER_ALLOW_IPS": "10.0.0.0/8,::1", "CULVERT_SERVER_TOKEN_FILE": "/from/environment",
	})}
	var cfg Server
	settings := Describe(&cfg, Mixed)
	settings.Lookup("port").Set("3333")
	settings.Lookup("token").Set("0123456789abcdef")
	settings.ReadEnvironment("CULVERT_SERVER", env)
	if err := settings.Check(nil); err != nil {
		t.Fatal(err)
	}
	if cfg.Port != 3333 || cfg.ControlPort != 2222 || cfg.DataAddr != "0.0.0.0" || len(cfg.AllowIPs) != 2 {
		t.Errorf("port %d, control port %d, data address %s, allowed %v", cfg.Port, cfg.ControlPort, cfg.DataAddr, cfg.AllowIPs)
	}
	if cfg.TokenFile != "" {
		t.Errorf("token file %q of the environment beside the flag --token", cfg.TokenFile)
	}
}

func TestAnEmptySecretInTheEnvironmentIsAMistake(t *testing.T) {
	var cfg Server
	settings := Describe(&cfg, Mixed)
	settings.ReadEnvironment("CULVERT_SERVER", Environment{Lookup: lookup(map[string]string{"CULVERT_SERVER_TOKEN": ""})})
	want := "CULVERT_SERVER_TOKEN: is empty; give it a value or leave it out"
	if err := settings.Check(nil); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestProblemsAreToldOnceInTheOrderOfSettings(t *testing.T) {
	var cfg Server
	settings := Describe(&cfg, Mixed)
	settings.Lookup("max-unauthenticated").Set("0")
	settings.ReadEnvironment("CULVERT_SERVER", Environment{Lookup: lookup(map[string]string{"CULVERT_SERVER_PORT": "x"})})
	cfg.Mode = Mixed
	got := settings.Check(cfg.Resolve(Environment{}))
	want := `CULVERT_SERVER_PORT: "x" is not a port; give a number from 0 (any free port) to 65535
--token-file: a server needs a credential; give --token-file FILE, --tokens FILE, or --insecure-no-auth if you mean it
--max-unauthenticated: 0 would let no client in; give 1 or more`
	if got == nil || got.Error() != want {
		t.Errorf("want -, got +\n%s", cmp.Diff(want, got.Error()))
	}
}

func TestDefaultStateDir(t *testing.T) {
	for _, test := range []struct {
		name string
		root bool
		env  map[string]string
		want string
	}{
		{"systemd", true, map[string]string{"STATE_DIRECTORY": "/var/lib/culvert-a:/var/lib/b"}, "/var/lib/culvert-a"},
		{"root", true, map[string]string{"HOME": "/root"}, "/var/lib/culvert"},
		{"XDG", false, map[string]string{"XDG_STATE_HOME": "/s", "HOME": "/home/u"}, "/s/culvert"},
		{"a relative XDG folder is none", false, map[string]string{"XDG_STATE_HOME": "s", "HOME": "/home/u"}, "/home/u/.local/state/culvert"},
		{"home", false, map[string]string{"HOME": "/home/u"}, "/home/u/.local/state/culvert"},
		{"nothing", false, nil, "culvert-state"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := defaultStateDir(Environment{Lookup: lookup(test.env), Root: test.root}); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}
