package health

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for spec, want := range map[string]Check{
		"tcp":                     {Kind: TCP},
		"tcp:8081":                {Kind: TCP, Port: 8081},
		"http":                    {Kind: HTTP},
		"http:/healthz?a=b":       {Kind: HTTP, Path: "/healthz?a=b"},
		"http:8081":               {Kind: HTTP, Port: 8081},
		"http:8081/healthz":       {Kind: HTTP, Port: 8081, Path: "/healthz"},
		`expect:PING\r\n|+PONG`:   {Kind: Expect, Send: "PING\r\n", Expect: "+PONG"},
		"expect:SSH-2.0":          {Kind: Expect, Expect: "SSH-2.0"},
		"expect:hello|":           {Kind: Expect, Send: "hello"},
		`udp:\x00\x01|\|\\`:       {Kind: UDP, Send: "\x00\x01", Expect: `|\`},
		"udp:ping":                {Kind: UDP, Send: "ping"},
		"udp":                     {Kind: UDP},
		`expect:\x1a:a=b,c|\t\0"`: {Kind: Expect, Send: "\x1a:a=b,c", Expect: "\t\x00\""},
	} {
		got, err := Parse(spec)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: error %v, difference\n%s", spec, err, diff)
		}
		again, err := Parse(got.String())
		if diff := cmp.Diff(got, again); err != nil || diff != "" {
			t.Errorf("%s: written as %q: error %v, difference\n%s", spec, got, err, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for spec, want := range map[string]string{
		"":               "use tcp, http, expect or udp",
		"ping":           `"ping" is unknown`,
		"tcp:ssh":        "not a port",
		"tcp:0":          "not a port",
		"http:healthz":   "http:/PATH",
		"https:/x":       `"https" is unknown`,
		"http:/a b":      "space in it",
		"expect":         "write expect:SEND|ANSWER",
		"expect:|":       "write expect:SEND|ANSWER",
		"expect:a|b|c":   "more than one",
		`expect:a\`:      "ends with a backslash",
		`expect:\q`:      `\q is unknown`,
		`expect:\x1`:     `\x is unknown`,
		`expect:\xzz`:    "two hexadecimal digits",
		"tcp:8081/about": "not a port",
	} {
		if _, err := Parse(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", spec, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tcp:8081")
	f.Add("http:8081/healthz")
	f.Add(`expect:PING\r\n|\|+PONG\x00`)
	f.Add(`udp:\\`)
	f.Fuzz(func(t *testing.T, spec string) {
		c, err := Parse(spec)
		if err != nil {
			return
		}
		again, err := Parse(c.String())
		if diff := cmp.Diff(c, again); err != nil || diff != "" {
			t.Errorf("%q is written as %q: error %v, difference\n%s", spec, c.String(), err, diff)
		}
	})
}
