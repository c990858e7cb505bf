package dataplane

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// A service that hangs, as a stopped process does, has its connections accepted all the same. A reload that changes how it is
// checked sends it no visitor before a check has said that it is well.
func TestAMemberThatIsDownStaysSoThroughAReload(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() { _ = hung.Close(); served.Wait() })
	served.Go(func() {
		for {
			c, err := hung.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "hung": hung.Addr().String(), "well": named(t, "well")}
	text := `
entrypoints: [{name: in, addr: "$addr", routes: [{upstream: app}]}]
upstreams:
  - name: app
    balance: first
    members: [{address: "$hung", name: hung}, {address: "$well", name: well}]
    health: {expect: {expect: "\n"}, interval: 2s, timeout: 2s, rise: 1, fall: 1}
`
	isDown := func() bool {
		for _, u := range d.State().Upstreams {
			for _, m := range u.Members {
				if m.Name == "hung" {
					return m.State == "down"
				}
			}
		}
		return false
	}
	apply(t, d, read(t, text, vars))
	await(t, "the member that hangs to be found", isDown)
	apply(t, d, read(t, strings.Replace(text, "interval: 2s", "interval: 3s", 1), vars))
	if !isDown() {
		t.Error("after a reload the member is taken for well")
	}
	if got := visit(t, "127.0.0.1", vars["addr"]).name; got != "well" {
		t.Errorf("after a reload: got %q, want well", got)
	}
	unchecked := text[:strings.Index(text, "    health:")]
	apply(t, d, read(t, unchecked, vars))
	if isDown() {
		t.Error("without a check a member is down for ever")
	}
}
