package dataplane

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"culvert/internal/admin"
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

// A client is called by its id, or by what lists show of a name that nobody has chosen.
func TestAClientIsDrainedByItsID(t *testing.T) {
	d := start(t)
	const one, two, other = "edge-1/730aa1bb96474cbc9f7e76c135e81da8", "edge-2/22fbfe123c884e8284ee0da3680c1311", "edge-2/4fd2a6e1b0c398754fd2a6e1b0c39875"
	for _, name := range []string{one, two, other} {
		offer(t, d, "name/app", newClient(name, named(t, name)))
	}
	drain := true
	for _, typed := range []string{"edge-1", "edge-2/22fbfe12"} {
		if err := d.ChangeMember("name/app", typed, admin.MemberChange{Drain: &drain}); err != nil {
			t.Errorf("%s: %v", typed, err)
		}
	}
	err := d.ChangeMember("name/app", "edge-2", admin.MemberChange{Drain: &drain})
	if !errors.Is(err, admin.ErrNotFound) || !strings.Contains(err.Error(), two+", "+other) {
		t.Errorf("one of two clients of an id: got %v, want an error that names both", err)
	}
	for _, m := range d.State().Upstreams[0].Members {
		if got, want := m.State == admin.MemberDraining, m.Name != other; got != want {
			t.Errorf("%s drains: %t, want %t", m.Name, got, want)
		}
	}
}
