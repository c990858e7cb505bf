package nearest

import (
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	names := []string{"my_app_servers", "my_test_servers", "tcp", "udp", "upstreams", "max_conns"}
	for _, test := range []struct{ name, typed, want string }{
		{"a letter left out", "my_test_server", "my_test_servers"},
		{"two letters swapped", "tpc", "tcp"},
		{"a letter wrong", "upstreans", "upstreams"},
		{"a beginning", "max", "max_conns"},
		{"something else", "backend", ""},
		{"nothing", "", ""},
		{"far too long", strings.Repeat("max_conns", 10), ""},
		{"the name itself", "udp", "udp"},
	} {
		if got := Name(test.typed, names); got != test.want {
			t.Errorf("%s: Name(%q) = %q, want %q", test.name, test.typed, got, test.want)
		}
	}
}

func TestNameOfCommandsAndFlags(t *testing.T) {
	names := []string{"server", "status", "control-port", "control-addr", "url"}
	for typed, want := range map[string]string{
		"sever": "server", "sevrer": "server", "servers": "server", "stat": "status", "controlport": "control-port",
		"control-adr": "control-addr", "ulr": "url", "x": "", "completely-different": "", "": "",
	} {
		if got := Name(typed, names); got != want {
			t.Errorf("Name(%q) = %q, want %q", typed, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"same", "same", 0}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
