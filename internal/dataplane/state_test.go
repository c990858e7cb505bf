package dataplane

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// What is shown stands in the order of the file, with why an entrypoint is closed.
func TestTheStateIsInTheOrderOfTheFile(t *testing.T) {
	d := start(t)
	vars := map[string]string{"first": free(t, "tcp"), "second": free(t, "tcp"), "app": named(t, "app")}
	apply(t, d, read(t, `
entrypoints:
  - {name: zebra, addr: $first, routes: [{upstream: zoo}]}
  - {name: ape, addr: $second, routes: [{upstream: name/away}]}
upstreams:
  - {name: zoo, members: [{address: "$app", name: m}]}
  - {name: alp, members: [{tunnel: name/away}]}
`, vars))
	_, port, _ := net.SplitHostPort(free(t, "tcp"))
	offer(t, d, "tcp/"+port, newClient("c", named(t, "c")))
	s := d.State()
	var got []string
	for _, e := range s.Entrypoints {
		got = append(got, fmt.Sprintf("%s %q", e.Name, e.Reason))
	}
	for _, u := range s.Upstreams {
		got = append(got, u.Name)
	}
	want := fmt.Sprintf(`zebra "", ape "no member is usable", tcp/%s "", zoo, alp, name/away, tcp/%s`, port, port)
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

// A port that somebody else has taken meanwhile is told as such, not as one that has no members.
func TestAPortThatCannotOpenSaysWhy(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, `
entrypoints: [{name: devices, addr: $addr, routes: [{upstream: name/app}]}]
`, map[string]string{"addr": addr}))
	taken, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	offer(t, d, "name/app", newClient("c", named(t, "c")))
	await(t, "the failure", func() bool { return strings.Contains(d.State().Entrypoints[0].Reason, "address already in use") })
	taken.Close()
	await(t, "the port to open", func() bool { s := d.State().Entrypoints[0]; return s.Listening && s.Reason == "" })
}
