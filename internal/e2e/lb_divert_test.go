//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The seed's case in the file: the devices of one address go to the debug box and all others to the pool, for each
// protocol and each family, and behind a balancer by the address that its header tells.
func TestLBDivertsBySource(t *testing.T) {
	need(t, "ip")
	addAddresses(t, "fd00::2", "fd00::3", "fd00::140")
	families := []struct {
		name, host       string
		others, diverted []string
	}{
		{"IPv4", "127.0.0.1", []string{"127.0.0.2", "127.0.0.3"}, []string{"127.0.0.140"}},
		{"IPv6", "::1", []string{"fd00::2", "fd00::3"}, []string{"fd00::140"}},
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, f := range families {
			t.Run(network+" "+f.name, func(t *testing.T) {
				t.Parallel()
				startOne := startTCP
				if network == "udp" {
					startOne = startUDP
				}
				local := "127.0.0.1:0"
				if f.host == "::1" {
					local = "[::1]:0"
				}
				app1, app2, debug := startOne(t, "app1", local), startOne(t, "app2", local), startOne(t, "debug", local)
				addr := freeAddrOn(t, f.host)
				startLB(t, fmt.Sprintf(`
entrypoints:
  - name: devices
    protocol: %s
    addr: %q
    routes:
      - match: {source: [%s, 192.0.2.0/24]}
        upstream: debug
      - upstream: app
upstreams:
  - name: app
    members: %s
  - name: debug
    members: %s
`, network, addr, strings.Join(f.diverted, ", "), memberList(app1.addr, app2.addr), memberList(debug.addr)))
				// One of the others keeps a connection all along: the diverted one's visits do not touch it.
				kept := openTalk(t, network, f.others[0], addr)
				keeper := kept.mustSay(t, "first").by
				var others []string
				for range 4 {
					for _, source := range f.others {
						others = append(others, whoAnswers(t, network, source, addr))
					}
					for _, source := range f.diverted {
						if by := whoAnswers(t, network, source, addr); by != "debug" {
							t.Errorf("%s from %s: %s answers, want debug", network, source, by)
						}
					}
				}
				alternate(t, append([]string{keeper}, others...), "app1", "app2")
				if s := kept.mustSay(t, "last"); s.by != keeper {
					t.Errorf("the kept connection went from %s to %s", keeper, s.by)
				}
			})
		}
	}
}

// alternate wants the two names in turn, whichever is first.
func alternate(t *testing.T, by []string, a, b string) {
	t.Helper()
	for i, name := range by {
		if name != a && name != b || i > 0 && name == by[i-1] {
			t.Errorf("%v is not %s and %s in turn", by, a, b)
			return
		}
	}
}

func TestLBDivertsByTheSourceOfTheHeader(t *testing.T) {
	t.Parallel()
	app1, app2, debug := startTCP(t, "app1", "127.0.0.1:0"), startTCP(t, "app2", "127.0.0.1:0"), startTCP(t, "debug", "127.0.0.1:0")
	addr := freeAddr(t)
	startLB(t, fmt.Sprintf(`
entrypoints:
  - name: devices
    addr: %q
    proxy_protocol: {accept: auto, trusted: [127.0.0.50/32]}
    routes:
      - match: {source: [192.168.100.1, "2001:db8::/64", 127.0.0.50]}
        upstream: debug
      - upstream: app
upstreams:
  - name: app
    members: %s
  - name: debug
    members: %s
`, addr, memberList(app1.addr, app2.addr), memberList(debug.addr)))
	for _, c := range []struct {
		name, header string
		debug        bool
	}{
		{"v1, the source of the rule", "PROXY TCP4 192.168.100.1 192.168.137.100 4000 23\r\n", true},
		{"v1, another", "PROXY TCP4 192.168.100.3 192.168.137.100 4000 23\r\n", false},
		{"v1 of IPv6, the network of the rule", "PROXY TCP6 2001:db8::5 2001:db8:1::1 4000 23\r\n", true},
		{"v1 of IPv6, another", "PROXY TCP6 2001:db8:0:1::5 2001:db8:1::1 4000 23\r\n", false},
		{"v2, the source of the rule", proxyV2TCP4("192.168.100.1:4000", "192.168.137.100:23"), true},
		{"v2, another", proxyV2TCP4("192.168.100.2:4000", "192.168.137.100:23"), false},
		{"v2 of IPv6, the network of the rule", proxyV2TCP6("[2001:db8::5]:4000", "[2001:db8:1::1]:23"), true},
		{"UNKNOWN is the balancer itself", "PROXY UNKNOWN\r\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := openTalk(t, "tcp", "127.0.0.50", addr)
			if _, err := io.WriteString(k.Conn, c.header); err != nil {
				t.Fatal(err)
			}
			if s := k.mustSay(t, "hello"); (s.by == "debug") != c.debug {
				t.Errorf("%s answers", s.by)
			}
		})
	}
	// An untrusted source needs no header, and is not diverted by one.
	alternate(t, whoAnswerEach(t, 6, "tcp", "127.0.0.2", addr), "app1", "app2")
	k := openTalk(t, "tcp", "127.0.0.2", addr)
	if _, err := io.WriteString(k.Conn, "PROXY TCP4 192.168.100.1 192.168.137.100 4000 23\r\nhello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(k.Conn).ReadString('\n'); err == nil {
		t.Errorf("a forged header: got %q, want the connection closed", line)
	}
	if n := debug.accepted.Load(); n != 5 {
		t.Errorf("debug had %d connections, want 5: the forged one must not reach it", n)
	}
}

// A policy is what visitors see of it.
func TestLBPolicies(t *testing.T) {
	t.Parallel()
	var addrs []string
	for _, name := range []string{"a", "b", "c"} {
		addrs = append(addrs, startTCP(t, name, "127.0.0.1:0").addr)
	}
	addr := map[string]string{}
	for _, policy := range []string{"round_robin", "weighted", "least_conn", "random_two", "source_hash", "first"} {
		addr[policy] = freeAddr(t)
	}
	text := func(hashed ...string) string {
		var e, u strings.Builder
		for policy, a := range addr {
			fmt.Fprintf(&e, "  - {name: %[1]s, addr: %[2]q, routes: [{upstream: %[1]s}]}\n", policy, a)
			members, balance := memberList(addrs...), policy
			switch policy {
			case "weighted":
				balance = "round_robin"
				members = fmt.Sprintf("[{address: %q, weight: 3}, {address: %q}]", addrs[0], addrs[1])
			case "source_hash":
				members = memberList(hashed...)
			}
			fmt.Fprintf(&u, "  - {name: %s, balance: %s, members: %s}\n", policy, balance, members)
		}
		return "entrypoints:\n" + e.String() + "upstreams:\n" + u.String()
	}
	b := startLB(t, text(addrs...))

	t.Run("round robin over all visitors", func(t *testing.T) {
		var by []string
		for i := range 12 {
			by = append(by, whoAnswers(t, "tcp", fmt.Sprintf("127.0.2.%d", i+1), addr["round_robin"]))
		}
		for i := 3; i < len(by); i++ {
			if by[i] != by[i-3] || by[i] == by[i-1] {
				t.Errorf("%v is not three in turn", by)
				break
			}
		}
	})
	t.Run("weights 3 to 1", func(t *testing.T) {
		by := whoAnswerEach(t, 16, "tcp", "", addr["weighted"])
		for i := 0; i+4 <= len(by); i++ {
			if n := tally(by[i : i+4]); n["a"] != 3 || n["b"] != 1 {
				t.Errorf("%v: in four in a row from %d on a has %d and b %d, want 3 and 1", by, i, n["a"], n["b"])
				break
			}
		}
	})
	t.Run("least connections", func(t *testing.T) {
		var open []*talk
		held := map[string]int{}
		for range 30 {
			k := openTalk(t, "tcp", "", addr["least_conn"])
			open = append(open, k)
			held[k.mustSay(t, "hello").by]++
		}
		if held["a"] != 10 || held["b"] != 10 || held["c"] != 10 {
			t.Errorf("30 connections went %v", held)
		}
		// Those of one member end: the next go there.
		gone := 0
		for _, k := range open {
			if k.mustSay(t, "still").by == "b" && gone < 6 {
				k.Close()
				gone++
			}
		}
		until(t, "the balancer sees six connections of b end", func() bool {
			return sum(b.metrics(t), "culvert_member_connections", `upstream="least_conn"`) == 24
		})
		for range gone {
			if by := openTalk(t, "tcp", "", addr["least_conn"]).mustSay(t, "next").by; by != "b" {
				t.Errorf("%s has the next, and b the fewest", by)
			}
		}
	})
	t.Run("two at random", func(t *testing.T) {
		if n := tally(whoAnswerEach(t, 60, "tcp", "", addr["random_two"])); len(n) != 3 {
			t.Errorf("60 connections went %v", n)
		}
	})
	t.Run("first", func(t *testing.T) {
		if n := tally(whoAnswerEach(t, 10, "tcp", "", addr["first"])); n["a"] != 10 {
			t.Errorf("10 connections went %v", n)
		}
	})
	t.Run("source hash", func(t *testing.T) { sourceHash(t, b, addr["source_hash"], addrs, text) })
}

// sourceHash takes one of three members away and gives it back: only its visitors move, and they return.
func sourceHash(t *testing.T, b *balancer, addr string, members []string, text func(...string) string) {
	t.Helper()
	const visitors = 60
	homes := func() (by []string) {
		for i := range visitors {
			by = append(by, whoAnswers(t, "tcp", fmt.Sprintf("127.0.3.%d", i+1), addr))
		}
		return by
	}
	before := homes()
	if again := homes(); !slices.Equal(before, again) {
		t.Errorf("visitors have no home: %v, then %v", before, again)
	}
	if n := tally(before); len(n) != 3 || min(n["a"], n["b"], n["c"]) < visitors/10 {
		t.Errorf("%d visitors went %v", visitors, n)
	}
	kept := openTalk(t, "tcp", "127.0.3.1", addr)
	kept.mustSay(t, "before")
	b.reload(t, text(members[0], members[2]))
	without := homes()
	moved := 0
	for i := range visitors {
		if before[i] == "b" {
			moved++
			if without[i] == "b" {
				t.Errorf("visitor %d is still with the member that is gone", i)
			}
			continue
		}
		if without[i] != before[i] {
			t.Errorf("visitor %d moved from %s to %s though its member stays", i, before[i], without[i])
		}
	}
	kept.mustSay(t, "without b")
	b.reload(t, text(members...))
	if back := homes(); !slices.Equal(before, back) {
		t.Errorf("with the member back: %v, before %v", back, before)
	}
	kept.mustSay(t, "with b")
	t.Logf("%d of %d visitors moved with their member and came back, nobody else", moved, visitors)
}

// An entrypoint of every address has visitors of both families, and those of IPv4 are known by their own address.
func TestLBEveryAddress(t *testing.T) {
	need(t, "ip")
	t.Parallel()
	addAddresses(t, "fd00::2", "fd00::140")
	app, debug := startTCP(t, "app", "127.0.0.1:0"), startTCP(t, "debug", "127.0.0.1:0")
	appUDP, debugUDP := startUDP(t, "app", "127.0.0.1:0"), startUDP(t, "debug", "127.0.0.1:0")
	p := portOf(freeAddr(t))
	startLB(t, fmt.Sprintf(`
entrypoints:
  - name: tcp
    addr: ":%s"
    allow: [127.0.0.0/8, "::1", "fd00::/16"]
    routes: [{match: {source: [127.0.0.140, "fd00::140"]}, upstream: debug}, {upstream: app}]
  - name: udp
    protocol: udp
    addr: ":%[1]s"
    allow: [127.0.0.0/8, "::1", "fd00::/16"]
    routes: [{match: {source: [127.0.0.140, "fd00::140"]}, upstream: debug-udp}, {upstream: app-udp}]
upstreams:
  - {name: app, members: %s}
  - {name: debug, members: %s}
  - {name: app-udp, members: %s}
  - {name: debug-udp, members: %s}
`, p, memberList(app.addr), memberList(debug.addr), memberList(appUDP.addr), memberList(debugUDP.addr)))
	for _, c := range []struct{ source, host, want string }{
		{"127.0.0.2", "127.0.0.1", "app"},
		{"127.0.0.140", "127.0.0.1", "debug"},
		{"127.0.0.140", "127.0.0.77", "debug"},
		{"127.0.0.3", "127.0.0.77", "app"},
		{"fd00::2", "::1", "app"},
		{"fd00::140", "::1", "debug"},
		{"fd00::140", "fd00::2", "debug"},
	} {
		for _, network := range []string{"tcp", "udp"} {
			// A socket of UDP that is connected hears only from the address that it has asked.
			k := openTalk(t, network, c.source, net.JoinHostPort(c.host, p))
			s, err := k.says("who", 3*time.Second)
			if err != nil || s.by != c.want {
				t.Errorf("%s from %s to %s: %s answers, %v, want %s", network, c.source, c.host, s.by, err, c.want)
			}
		}
	}
}

// A member may be a socket of the file system, or a name.
func TestLBMembersByPathAndName(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	unix := &member{name: "unix"}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				unix.converse(c)
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wait.Wait() })
	named := startTCP(t, "named", "127.0.0.1:0")
	addr := freeAddr(t)
	startLB(t, oneEntrypoint(addr, memberList("unix:"+socket, "localhost:"+portOf(named.addr)), "health: {tcp: {}}"))
	if n := tally(whoAnswerEach(t, 10, "tcp", "", addr)); n["unix"] != 5 || n["named"] != 5 {
		t.Errorf("10 connections went %v", n)
	}
}
