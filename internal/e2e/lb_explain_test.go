//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
)

// culvert explain says where a connection went, and why.
func TestExplainSaysWhy(t *testing.T) {
	t.Parallel()
	app, debug := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "debug", "127.0.0.1:0")
	addr, gone := freeAddr(t), freeAddr(t)
	b := startLB(t, fmt.Sprintf(`
entrypoints:
  - name: devices
    addr: %q
    routes: [{name: debug-box, match: {source: 127.0.0.140}, upstream: debug}, {upstream: app}]
upstreams:
  - {name: debug, members: %s}
  - {name: app, balance: first, members: %s}
`, addr, memberList(debug.addr), memberList(gone, app.addr)))
	k := openTalk(t, "tcp", "127.0.0.2", addr)
	k.mustSay(t, "hello")
	k.Close()
	openTalk(t, "tcp", "127.0.0.140", addr).mustSay(t, "open")
	broken := openTalk(t, "tcp", "127.0.0.3", addr)
	broken.mustSay(t, "hello")
	_ = broken.Conn.(*net.TCPConn).SetLinger(0) // to be reset
	broken.Close()
	explain := func(args ...string) string {
		return must(t, program{argv: append([]string{culvert(), "explain", "--url", "wss://" + b.control, "--token-file", b.state + "/token"}, args...)})
	}
	var out string
	eventually(t, patience, "the record of the connection is closed", func(context.Context) error {
		out = explain("--source", "127.0.0.2")
		for _, want := range []string{"127.0.0.2", "devices", "app", app.addr, gone, "refused"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in\n%s", want, out)
			}
		}
		return nil
	})
	t.Logf("%s", out)
	eventually(t, patience, "the record says that the visitor reset", func(context.Context) error {
		if out := explain("--source", "127.0.0.3"); !strings.Contains(out, "by the visitor") || !strings.Contains(out, ": reset\n") {
			return fmt.Errorf("got\n%s", out)
		}
		return nil
	})
	out = explain("--source", "127.0.0.140")
	for _, want := range []string{"debug-box", debug.addr} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
