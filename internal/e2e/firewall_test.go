//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A firewall drops packets of the tests' own network namespace on arrival: neither end hears of it.
type firewall struct{ table string }

// startFirewall needs nft, and a namespace whose rules are nobody else's.
func startFirewall(t *testing.T) *firewall {
	t.Helper()
	if os.Getenv(insideKey) == "" {
		t.Skip("only root runs in a namespace of its own")
	}
	f := &firewall{"culvert_" + strconv.Itoa(int(nextPort.Add(1)))}
	nft(t, "add table inet "+f.table+"; add chain inet "+f.table+" in { type filter hook input priority 0; }")
	t.Cleanup(func() { nft(t, "delete table inet "+f.table) })
	return f
}

// drop silences the packets that match one of the expressions.
func (f *firewall) drop(t *testing.T, matches ...string) {
	t.Helper()
	var rules strings.Builder
	for _, m := range matches {
		fmt.Fprintf(&rules, "add rule inet %s in %s drop; ", f.table, m)
	}
	nft(t, rules.String())
}

// clear lets everything through again.
func (f *firewall) clear(t *testing.T) {
	t.Helper()
	nft(t, "flush chain inet "+f.table+" in")
}

func nft(t *testing.T, commands string) {
	t.Helper()
	must(t, program{argv: []string{"nft", commands}})
}

// toOrFrom matches all TCP packets of these ports, in both directions.
func toOrFrom(t *testing.T, addrs ...string) []string {
	t.Helper()
	var ports []string
	for _, a := range addrs {
		ports = append(ports, port(t, a))
	}
	set := "{ " + strings.Join(ports, ", ") + " }"
	return []string{"tcp dport " + set, "tcp sport " + set}
}

// flows matches the connections to an address that are open now, in both directions, and no later ones.
func flows(t *testing.T, to string) (matches []string, count int) {
	t.Helper()
	sources := sourcePorts(t, to)
	set := "{ " + strings.Join(sources, ", ") + " }"
	p := port(t, to)
	return []string{"tcp sport " + set + " tcp dport " + p, "tcp sport " + p + " tcp dport " + set}, len(sources)
}

// sourcePorts are those of the established IPv4 connections to an address.
func sourcePorts(t *testing.T, to string) (ports []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddrPort(to)
	ip := a.Addr().As4()
	remote := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port())
	const established = "01"
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		f := strings.Fields(lines.Text()) // sl local remote state …
		if len(f) < 4 || f[2] != remote || f[3] != established {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			t.Fatalf("/proc/self/net/tcp: %q: %v", f, err)
		}
		ports = append(ports, strconv.FormatUint(n, 10))
	}
	return ports
}

func TestFirewallDropsAndClears(t *testing.T) {
	need(t, "nft")
	l := startLedger(t) // before the rules, which end first: its connections must be able to end
	f := startFirewall(t)
	addr := l.Addr().String()
	silent := func() bool {
		err := visitLedger(addr, 300*time.Millisecond).err
		return err != nil && isTimeout(err)
	}
	if silent() {
		t.Error("without rules: silent")
	}
	f.drop(t, toOrFrom(t, addr)...)
	if !silent() {
		t.Error("with the port dropped: a visit did not time out")
	}
	f.clear(t)

	old, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	matches, n := flows(t, addr)
	if n == 0 {
		t.Fatal("the open connection is not found")
	}
	f.drop(t, matches...)
	if silent() {
		t.Error("with the open connection dropped: a new one is silent")
	}
	if _, err := old.Write(make([]byte, nonceSize)); err != nil {
		t.Fatal(err)
	}
	_ = old.SetReadDeadline(time.Now().Add(300 * time.Millisecond)) // fails only on a closed connection
	if _, err := old.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("the dropped connection: %v, want it silent", err)
	}
}
