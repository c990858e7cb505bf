//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startProxiedNginx wants a PROXY header of each connection, and answers with the addresses that it tells. It logs them too.
func startProxiedNginx(t *testing.T) (four, six, log string) {
	t.Helper()
	four, six = freeAddr(t), freeAddrOn(t, "::1")
	dir := t.TempDir()
	log = filepath.Join(dir, "access.log")
	who := ""
	if os.Geteuid() == 0 { // the workers must read what only root may enter
		who = "user root;"
	}
	config := write(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off; %s pid %[2]s/pid; error_log stderr notice; worker_processes 1;
events { worker_connections 1024; }
http {
  log_format real '$proxy_protocol_addr $proxy_protocol_port $request_uri';
  access_log %[3]s real; default_type text/plain;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
  uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  set_real_ip_from 127.0.0.0/8; set_real_ip_from ::1; real_ip_header proxy_protocol;
  server {
    listen %[4]s proxy_protocol; listen %[5]s proxy_protocol;
    location / { return 200 "$remote_addr $remote_port to $proxy_protocol_server_addr $proxy_protocol_server_port\n"; }
  }
}
`, who, dir, log, four, six), 0o600)
	start(t, program{argv: []string{"nginx", "-p", dir, "-e", "stderr", "-c", config}})
	accepts(t, "tcp", four)
	return four, six, log
}

// get fetches http://addr/path from a source over a connection of its own, and tells its local address.
func getFrom(source, addr, path string) (local netip.AddrPort, body string, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			c, err := dialFrom("tcp", source, addr, patience)
			if err == nil {
				local = netip.MustParseAddrPort(c.LocalAddr().String())
			}
			return c, err
		},
	}
	c := http.Client{Transport: transport, Timeout: patience}
	resp, err := c.Get("http://" + addr + path)
	if err != nil {
		return local, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", resp.StatusCode, b)
	}
	return local, string(b), err
}

// The chain of the seed: a balancer in front, the server, the tunnel, and a web server that wants the header. It logs the
// visitor's own address and port, for each version that the balancer speaks and each that nginx understands.
func TestLBChainHAProxyTunnelNginx(t *testing.T) {
	need(t, "haproxy", "nginx", "ip")
	t.Parallel()
	addAddresses(t, "fd00::2")
	four, six, log := startProxiedNginx(t)
	for _, out := range []string{"v1", "v2"} {
		s := startServer(t, "--lb-proxy-protocol", "v1", "--lb-trusted", "127.0.0.0/8", "--proxy-protocol", out)
		tunnel, tunnelSix := freeAddr(t), freeAddr(t)
		s.client(t, "--upstream", port(t, tunnel)+"="+four, "--upstream", port(t, tunnelSix)+"="+six)
		opens(t, tunnel, tunnelSix)
		for _, send := range proxySenders() {
			in4, in6 := freeAddr(t), freeAddrOn(t, "::1")
			startHAProxy(t, chainFront(send, in4, in6, tunnel, tunnelSix))
			chained(t, log, strings.ReplaceAll(send+"-"+out, " ", "-"), in4, in6)
		}
		// Without a header a trusted source is refused, and nginx never hears of it.
		if _, body, err := getFrom("127.0.0.2", tunnel, "/without"); err == nil {
			t.Errorf("without a header: %q", body)
		}
	}
}

// proxySenders are HAProxy's ways to send a header.
func proxySenders() []string {
	return []string{"send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"}
}

// chainFront is a balancer in front of two services, one for visitors of each family.
func chainFront(send, in4, in6, to4, to6 string) string {
	front := func(name, in, to string) string {
		return fmt.Sprintf("listen %s\n  mode tcp\n  unique-id-format %%{+X}o%%ci:%%cp\n  bind %s\n  server a %s %s\n", name, in, to, send)
	}
	return front("four", in4, to4) + front("six", in6, to6)
}

// chained asks nginx through the chain, and wants the visitor's own address in its answer and in its log.
func chained(t *testing.T, log, name, in4, in6 string) {
	t.Helper()
	accepts(t, "tcp", in6)
	for _, v := range []struct{ source, addr string }{{"127.0.0.2", in4}, {"fd00::2", in6}} {
		path := "/" + name + portOf(v.addr)
		local, body, err := getFrom(v.source, v.addr, path)
		want := fmt.Sprintf("%s %d to %s %s\n", local.Addr(), local.Port(), netip.MustParseAddrPort(v.addr).Addr(), portOf(v.addr))
		if err != nil || body != want {
			t.Errorf("%s from %s: %q %v, want %q", name, v.source, body, err, want)
		}
		logged(t, log, fmt.Sprintf("%s %d %s", local.Addr(), local.Port(), path))
	}
}

// opens waits until the addresses accept.
func opens(t *testing.T, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		accepts(t, "tcp", a)
	}
}

// logged waits for a line of a log file.
func logged(t *testing.T, file, line string) {
	t.Helper()
	eventually(t, patience, "nginx logs "+line, func(context.Context) error {
		b, err := os.ReadFile(file)
		if err == nil && !strings.Contains(string(b), line+"\n") {
			err = fmt.Errorf("it has\n%s", tail(string(b), 5))
		}
		return err
	})
}

// The balancer as the sender, to HAProxy with accept-proxy and to nginx, each version, each family.
func TestLBSendsProxyHeaders(t *testing.T) {
	need(t, "haproxy", "nginx", "ip")
	t.Parallel()
	addAddresses(t, "fd00::2")
	four, six, _ := startProxiedNginx(t)
	haFour, haSix := freeAddr(t), freeAddrOn(t, "::1")
	startHAProxy(t, fmt.Sprintf(`
frontend real
  mode http
  bind %s accept-proxy
  bind %s accept-proxy
  http-request return status 200 content-type text/plain lf-string "%%[src] %%[src_port] to %%[dst] %%[dst_port]\n"
`, haFour, haSix))
	accepts(t, "tcp", haFour)
	type path struct{ version, network, service, entry, upstream string }
	var paths []path
	text := "entrypoints:\n"
	upstreams := "upstreams:\n"
	for _, version := range []string{"v1", "v2"} {
		for service, addrs := range map[string][2]string{"nginx": {four, six}, "haproxy": {haFour, haSix}} {
			for i, host := range []string{"127.0.0.1", "::1"} {
				p := path{version: version, network: host, service: service, entry: freeAddrOn(t, host), upstream: addrs[i]}
				name := fmt.Sprintf("%s-%s-%d", service, version, i)
				text += fmt.Sprintf("  - {name: %[1]s, addr: %[2]q, routes: [{upstream: %[1]s}]}\n", name, p.entry)
				upstreams += fmt.Sprintf("  - {name: %s, proxy_protocol: %s, members: %s}\n", name, version, memberList(p.upstream))
				paths = append(paths, p)
			}
		}
	}
	startLB(t, text+upstreams)
	for _, p := range paths {
		source := "127.0.0.2"
		if p.network == "::1" {
			source = "fd00::2"
		}
		for range 5 { // a header that came in two segments would be refused now and then
			local, body, err := getFrom(source, p.entry, "/")
			want := fmt.Sprintf("%s %d to %s %s\n", local.Addr(), local.Port(), p.network, portOf(p.entry))
			if err != nil || body != want {
				t.Errorf("%s to %s: %q %v, want %q", p.version, p.service, body, err, want)
			}
		}
	}
}

// A header is one segment: a service that reads once has all of it, and the first bytes of the visitor with it where
// they were there. A service that speaks first is not kept waiting for them.
func TestLBHeaderIsOneSegment(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	entries := map[string]string{"v1": freeAddr(t), "v2": freeAddr(t)}
	text, upstreams := "entrypoints:\n", "upstreams:\n"
	for v, a := range entries {
		text += fmt.Sprintf("  - {name: %[1]s, addr: %[2]q, routes: [{upstream: %[1]s}]}\n", v, a)
		upstreams += fmt.Sprintf("  - {name: %[1]s, proxy_protocol: %[1]s, members: %[2]s}\n", v, memberList(l.Addr().String()))
	}
	startLB(t, text+upstreams)
	s := startServer(t, "--proxy-protocol", "v2")
	tunnel := freeAddr(t)
	s.clientProgram(t, "tcp client", "--upstream", port(t, tunnel)+"="+l.Addr().String())
	opens(t, tunnel)
	entries["v2 through a tunnel"] = tunnel
	for name, addr := range entries {
		for _, first := range []string{"", "hello"} {
			for range 10 {
				c, err := dialFrom("tcp", "127.0.0.2", addr, patience)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(c, first); err != nil {
					t.Fatal(err)
				}
				got := firstRead(t, l, c.LocalAddr().String())
				local, there := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(addr)
				want := fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\n", local.Addr(), there.Addr(), local.Port(), there.Port())
				if strings.HasPrefix(name, "v2") {
					want = proxyV2TCP4(local.String(), there.String())
				}
				if !strings.HasPrefix(got, want) || !strings.HasPrefix(want+first, got) {
					t.Errorf("%s: the first segment is %q, want %q", name, got, want+first)
				}
				c.Close()
			}
		}
	}
}

// firstRead is what the first read of the next connection gives, that of this visitor. A connection of accepts, which
// ended before it said anything, has a header too: those are passed over.
func firstRead(t *testing.T, l net.Listener, visitor string) string {
	t.Helper()
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)) // fails only on a closed listener
	from := netip.MustParseAddrPort(visitor)
	for {
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("no connection of %s: %v", visitor, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
		buf := make([]byte, 64<<10)
		n, err := c.Read(buf)
		c.Close()
		if err != nil {
			continue
		}
		got := string(buf[:n])
		if strings.Contains(got, fmt.Sprintf(" %d ", from.Port())) || strings.Contains(got, string([]byte{byte(from.Port() >> 8), byte(from.Port())})) {
			return got
		}
	}
}

// Who may send a header, and what becomes of one that is forged, late, missing, split or broken (C16).
func TestLBTrustsHeadersOfTheTrusted(t *testing.T) {
	t.Parallel()
	app := startTCP(t, "app", "127.0.0.1:0")
	addr := freeAddr(t)
	b := startLB(t, fmt.Sprintf(`
entrypoints:
  - name: devices
    addr: %q
    proxy_protocol: {accept: auto, trusted: [127.0.0.50, 127.0.0.51], timeout: 1s}
    routes: [{upstream: app}]
upstreams:
  - {name: app, members: %s}
`, addr, memberList(app.addr)))
	v1 := "PROXY TCP4 192.0.2.1 192.0.2.2 4000 23\r\n"
	v2 := proxyV2TCP4("192.0.2.1:4000", "192.0.2.2:23")
	crc := checksummed(proxyV2TCP4("192.0.2.1:4000", "192.0.2.2:23", proxyTLV(tlvCRC32C, "\x00\x00\x00\x00")))
	broken := []byte(crc)
	broken[20]++
	longest := "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n"
	for _, c := range []struct {
		name, source, sends string
		passes              bool
		split               int // 0: in one segment, n: in segments of n bytes
	}{
		{"trusted, v1", "127.0.0.50", v1, true, 0},
		{"trusted, v1, a byte at a time", "127.0.0.50", v1, true, 1},
		{"trusted, v1 of 104 bytes, in sevens", "127.0.0.50", longest, true, 7},
		{"trusted, v2", "127.0.0.51", v2, true, 0},
		{"trusted, v2, a byte at a time", "127.0.0.51", v2, true, 1},
		{"trusted, v2 with CRC32C", "127.0.0.51", crc, true, 0},
		{"trusted, AWS with its TLVs", "127.0.0.51", nlbData("192.0.2.1:4000", "192.0.2.2:23"), true, 0},
		{"trusted, AWS health", "127.0.0.51", nlbHealth(), true, 0},
		{"trusted, v1 UNKNOWN with more", "127.0.0.51", "PROXY UNKNOWN ff:ff 1 2 3\r\n", true, 0},
		{"trusted, wrong CRC32C", "127.0.0.51", string(broken), false, 0},
		{"trusted, no header", "127.0.0.50", "", false, 0},
		{"trusted, lone LF", "127.0.0.50", strings.Replace(v1, "\r", "", 1), false, 0},
		{"trusted, port 70000", "127.0.0.50", strings.Replace(v1, "4000", "70000", 1), false, 0},
		{"trusted, TCP6 with IPv4", "127.0.0.50", strings.Replace(v1, "TCP4", "TCP6", 1), false, 0},
		{"trusted, v1 too long", "127.0.0.50", "PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n", false, 0},
		{"trusted, TLV overruns", "127.0.0.50", proxyV2TCP4("192.0.2.1:4000", "192.0.2.2:23", "\xea\x00\x10abc"), false, 0},
		{"trusted, command 2", "127.0.0.50", proxyV2(2, 0x11, proxyAddresses("192.0.2.1:4000", "192.0.2.2:23")), false, 0},
		{"trusted, family 4", "127.0.0.50", proxyV2(1, 0x41, ""), false, 0},
		{"untrusted, none", "127.0.0.2", "", true, 0},
		{"untrusted, v1", "127.0.0.2", v1, false, 0},
		{"untrusted, v1 a byte at a time", "127.0.0.2", v1, false, 1},
		{"untrusted, v2", "127.0.0.2", v2, false, 0},
		{"untrusted, v2 in sevens", "127.0.0.2", v2, false, 7},
		{"untrusted, LOCAL", "127.0.0.2", nlbHealth(), false, 0},
		{"untrusted, almost a header", "127.0.0.2", "PROX", true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := openTalk(t, "tcp", c.source, addr)
			sends := c.sends
			if !c.passes {
				sends += "GET / HTTP/1.0\n" // and then what is no header
			}
			for step := max(c.split, 1); len(sends) > 0; sends = sends[min(step, len(sends)):] {
				if c.split == 0 {
					step = len(sends)
				}
				if _, err := io.WriteString(k.Conn, sends[:min(step, len(sends))]); err != nil {
					break // refused already
				}
				if c.split > 0 {
					lasts(t, time.Millisecond) // a segment of its own
				}
			}
			if !c.passes {
				_ = k.SetReadDeadline(time.Now().Add(patience)) // fails only on a closed connection
				if line, err := bufio.NewReader(k.Conn).ReadString('\n'); err == nil || isTimeout(err) || line != "" {
					t.Errorf("got %q, %v, want the connection closed", line, err)
				}
				return
			}
			s, err := k.says("hello", patience)
			if err != nil || !strings.HasSuffix(s.line, "hello") || strings.Contains(s.line, "PROXY") {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
	// A trusted source that says nothing is closed when its time is up; an untrusted one is dialled at once.
	silent := openTalk(t, "tcp", "127.0.0.50", addr)
	began := time.Now()
	_ = silent.SetReadDeadline(began.Add(patience)) // fails only on a closed connection
	if _, err := silent.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a trusted source that says nothing: %v", err)
	}
	t.Logf("a trusted source that says nothing is closed after %v", time.Since(began))
	if took := time.Since(began); took > 4*time.Second { // without the setting it is 5 s
		t.Errorf("closed after %v, want 1 s", took)
	}
	for name, n := range b.metrics(t) {
		if strings.HasPrefix(name, "culvert_entrypoint_refused_total") {
			t.Logf("%s %v", name, n)
		}
	}
	had := app.accepted.Load()
	openTalk(t, "tcp", "127.0.0.2", addr)
	until(t, "the member is dialled for a visitor who says nothing", func() bool { return app.accepted.Load() > had })
}

// A check of a member that wants a header begins with one: LOCAL, or in version 1 the address of the balancer.
func TestLBChecksOfProxiedMembers(t *testing.T) {
	need(t, "haproxy", "nginx")
	t.Parallel()
	four, _, log := startProxiedNginx(t)
	ha := freeAddr(t)
	startHAProxy(t, "frontend real\n  mode http\n  bind "+ha+" accept-proxy\n  http-request return status 200 if { path /healthy }\n  http-request return status 404\n")
	accepts(t, "tcp", ha)
	text, upstreams := "entrypoints:\n", "upstreams:\n"
	var members []string
	for _, version := range []string{"v1", "v2"} {
		for service, addr := range map[string]string{"nginx": four, "haproxy": ha} {
			name := service + "-" + version
			members = append(members, name)
			text += fmt.Sprintf("  - {name: %[1]s, addr: %[2]q, routes: [{upstream: %[1]s}]}\n", name, freeAddr(t))
			upstreams += fmt.Sprintf("  - {name: %[1]s, proxy_protocol: %[2]s, members: [{name: %[1]s, address: %[3]q}], health: {http: {path: /healthy, host: www.example.com, status: 200}, interval: 1s, timeout: 1s}}\n", name, version, addr)
		}
	}
	b := startLB(t, text+upstreams)
	until(t, "every member has been checked", func() bool {
		m := b.metrics(t)
		for _, name := range members {
			if sum(m, "culvert_member_checks_total", `member="`+name+`"`) < 2 {
				return false
			}
		}
		return true
	})
	m := b.metrics(t)
	for _, name := range members {
		if n := sum(m, "culvert_member_check_failures_total", `member="`+name+`"`); n != 0 || sum(m, "culvert_member_up", `member="`+name+`"`) != 1 {
			t.Errorf("%s: %v checks failed", name, n)
		}
	}
	logged(t, log, "/healthy")
}
