package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"culvert/internal/config/file"
	"culvert/internal/hostname"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/upstream/health"
)

// read reads text as a file named f.
func read(text string) (Plan, file.Faults, error) {
	doc, err := file.Parse("f", []byte(text))
	if err != nil {
		return Plan{}, nil, err
	}
	return Read(doc, file.Options{})
}

// contract is the file of the data plane with everything that it can hold.
const contract = `
entrypoints:
  - name: devices
    protocol: tcp
    addr: 192.168.137.100:23
    proxy_protocol: {accept: v2, trusted: [10.0.0.0/8], timeout: 4s}
    allow: 0.0.0.0/0
    probe_sources: [10.0.0.5]
    when_empty: queue
    queue_timeout: 9s
    max_conns: 5
    half_closed_timeout: 1h
    idle_timeout: 2d
    routes:
      - name: debug-box
        match: {source: [192.168.100.1, 10.0.0.0/8], percent: 12.5}
        upstream: debug
        on_down: fallback
      - upstream: app
  - {name: vpn, protocol: udp, addr: ":1194", profile: vpn, max_flows: 7, max_flows_per_source: 6, max_packets_per_source: 5,
     routes: [{upstream: name/vpn}]}
  - name: syslog
    protocol: udp
    addr: "[::1]:514"
    mode: per_packet
    routes: [{upstream: log}]
  - name: sni
    protocol: tls
    addr: :443
    hello_timeout: 3s
    routes:
      - {match: {host: API.example.com}, upstream: tcp/2222}
      - {match: {host: ["*.example.com"]}, upstream: app}
      - {upstream: app}
upstreams:
  - name: app
    balance: source_hash
    proxy_protocol: v1
    members:
      - {address: 192.168.137.101:23}
      - {address: 192.168.137.102:23, name: app2, weight: 2, max_conns: 100}
      - {address: "unix:/run//app.sock", backup: true}
    health: {expect: {send: "PING\r\n", expect: "+PONG"}, interval: 3s, timeout: 2s, rise: 1, fall: 4, port: 24}
    connect: {timeout: 1s, retries: 0}
    queue: {max: 100, timeout: 6s}
    slow_start: 10s
    eject: off
    close_on_down: true
  - name: debug
    proxy_protocol: {version: v2, tlvs: [authority, unique_id, crc32c], udp_header: first}
    members: [{tunnel: name/laptop}, {tunnel: tls/a.example.com, name: other}]
    health: {tcp: {}}
  - name: log
    members: [{address: "[::1]:5140"}]
`

func prefixes(s ...string) (all []netip.Prefix) {
	for _, one := range s {
		all = append(all, netip.MustParsePrefix(one))
	}
	return all
}

func pattern(t *testing.T, s string) hostname.Pattern {
	t.Helper()
	p, err := hostname.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// comparable types with fields of their own.
var plain = cmp.Options{
	cmp.Comparer(func(a, b tunnel.Name) bool { return a == b }),
	cmp.Comparer(func(a, b hostname.Pattern) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestReadFillsInAllThereIs(t *testing.T) {
	got, warnings, err := read(contract)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("error %v, warnings %v", err, warnings)
	}
	noEjection := Eject{After: -1}
	defaultEjection := Eject{After: 3, For: 10 * time.Second, Most: 5 * time.Minute}
	want := Plan{
		Entrypoints: []Entrypoint{
			{
				Name: "devices", Protocol: TCP, Addr: "192.168.137.100:23",
				Access: Access{
					ProxyProtocol: ProxyAccept{AcceptAuto, prefixes("10.0.0.0/8"), 4 * time.Second},
					Allow:         prefixes("0.0.0.0/0"), ProbeSources: prefixes("10.0.0.5/32"), MaxConns: 5,
				},
				Streams:     Streams{WhenEmpty: Wait, QueueTimeout: 9 * time.Second, HalfClosedTimeout: time.Hour},
				IdleTimeout: 48 * time.Hour,
				Routes: []Route{
					{Name: "debug-box", Match: Match{Source: prefixes("192.168.100.1/32", "10.0.0.0/8"), Percent: 12.5}, Upstream: "debug", OnDown: Fallback},
					{Name: "app", Upstream: "app", OnDown: Fail},
				},
			},
			{
				Name: "vpn", Protocol: UDP, Addr: ":1194", Access: Access{ProxyProtocol: ProxyAccept{Accept: AcceptOff}},
				Flows:       Flows{Profile: VPN, Mode: Session, MaxFlows: 7, MaxFlowsPerSource: 6, MaxPacketsPerSource: 5},
				IdleTimeout: 3 * time.Minute,
				Routes:      []Route{{Name: "name/vpn", Upstream: "name/vpn", OnDown: Fail}},
			},
			{
				Name: "syslog", Protocol: UDP, Addr: "[::1]:514", Access: Access{ProxyProtocol: ProxyAccept{Accept: AcceptOff}},
				Flows: Flows{Profile: DefaultProfile, Mode: PerPacket, MaxFlows: 4096, MaxFlowsPerSource: 2048}, IdleTimeout: time.Minute,
				Routes: []Route{{Name: "log", Upstream: "log", OnDown: Fail}},
			},
			{
				Name: "sni", Protocol: TLS, Addr: ":443",
				Access:  Access{ProxyProtocol: ProxyAccept{Accept: AcceptOff}},
				Streams: Streams{WhenEmpty: Refuse, QueueTimeout: 10 * time.Second, HelloTimeout: 3 * time.Second, HalfClosedTimeout: 10 * time.Minute},
				Routes: []Route{
					{Name: "tcp/2222", Match: Match{Host: []hostname.Pattern{pattern(t, "api.example.com")}}, Upstream: "tcp/2222", OnDown: Fail},
					{Name: "app", Match: Match{Host: []hostname.Pattern{pattern(t, "*.example.com")}}, Upstream: "app", OnDown: Fail},
					{Name: "app-2", Upstream: "app", OnDown: Fail},
				},
			},
		},
		Upstreams: []Upstream{
			{
				Name: "app", Balance: "source_hash", ProxyProtocol: ProxySend{Version: SendV1, UDPHeader: EveryDatagram},
				Members: []Member{
					{Address: "192.168.137.101:23", Name: "192.168.137.101:23", Weight: 1},
					{Address: "192.168.137.102:23", Name: "app2", Weight: 2, MaxConns: 100},
					{Address: "unix:/run/app.sock", Name: "unix:/run/app.sock", Weight: 1, Backup: true},
				},
				Health: &Health{
					Expect:   &ExpectCheck{Send: "PING\r\n", Expect: "+PONG"},
					Interval: 3 * time.Second, Timeout: 2 * time.Second, Rise: 1, Fall: 4, Port: 24,
				},
				Connect: Connect{Timeout: time.Second}, Queue: Queue{100, 6 * time.Second}, SlowStart: 10 * time.Second,
				Eject: noEjection, CloseOnDown: true,
			},
			{
				Name: "debug", Balance: "round_robin",
				ProxyProtocol: ProxySend{Version: SendV2, TLVs: []string{"authority", "unique_id", "crc32c"}, UDPHeader: FirstDatagram},
				Members: []Member{
					{Tunnel: tunnel.PrivateName("laptop"), Name: "name/laptop", Weight: 1},
					{Tunnel: tunnel.TLSName(pattern(t, "a.example.com")), Name: "other", Weight: 1},
				},
				Health:  &Health{TCP: &TCPCheck{}, Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
				Connect: Connect{0, 2}, Queue: Queue{Timeout: 5 * time.Second}, Eject: defaultEjection,
			},
			{
				Name: "log", Balance: "round_robin", ProxyProtocol: ProxySend{Version: SendOff, UDPHeader: EveryDatagram},
				Members: []Member{{Address: "[::1]:5140", Name: "[::1]:5140", Weight: 1}},
				Connect: Connect{0, 2}, Queue: Queue{Timeout: 5 * time.Second}, Eject: defaultEjection,
			},
		},
	}
	if diff := cmp.Diff(want, got, plain); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	p, _, err := read(contract)
	if err != nil {
		t.Fatal(err)
	}
	again(t, p)
}

func again(t *testing.T, p Plan) {
	t.Helper()
	text, err := yaml.Marshal(file.Encode(p, Options()))
	if err != nil {
		t.Fatal(err)
	}
	q, _, err := read(string(text))
	if err != nil {
		t.Fatalf("what was written cannot be read: %v\n%s", err, text)
	}
	if diff := cmp.Diff(p, q, plain); diff != "" {
		t.Errorf("what was written is another plan:\n%s\n%s", diff, text)
	}
}

// An entrypoint that no file describes has what one of a file has that says no more of it.
func TestNewEntrypointIsThatOfAFileWhichSaysNothing(t *testing.T) {
	for _, protocol := range []Protocol{TCP, UDP, TLS} {
		p, _, err := read(fmt.Sprintf(`entrypoints: [{name: in, protocol: %s, addr: "127.0.0.1:1", routes: [{upstream: name/a}]}]`, protocol))
		if err != nil {
			t.Fatal(err)
		}
		want := p.Entrypoints[0]
		want.Routes = nil
		if diff := cmp.Diff(want, NewEntrypoint("in", protocol, "127.0.0.1:1"), plain); diff != "" {
			t.Errorf("%s: file, new:\n%s", protocol, diff)
		}
	}
}

func BenchmarkNewEntrypoint(b *testing.B) {
	for b.Loop() {
		NewEntrypoint("in", TCP, "127.0.0.1:1")
	}
}

func TestNothingIsAPlan(t *testing.T) {
	p, warnings, err := read("{x-nothing: 1}")
	if err != nil || len(warnings) > 0 || len(p.Entrypoints)+len(p.Upstreams) > 0 {
		t.Errorf("plan %v, warnings %v, error %v", p, warnings, err)
	}
	again(t, p)
}

// routed is a whole file with these routes at an entrypoint of this protocol; a, b and c are upstreams.
func routed(protocol, routes string) string {
	return "entrypoints: [{name: e, addr: ':1', protocol: " + protocol + ", routes: [" + routes + "]}]\n" +
		"upstreams: [{name: a, members: [{address: 'h:1'}]}, {name: b, members: [{address: 'h:2'}]}, {name: c, members: [{address: 'h:3'}]}]\n"
}

func TestRoutesThatCanNeverMatch(t *testing.T) {
	const never = "matches nobody who gets this far"
	for _, test := range []struct {
		name, protocol, routes string
		want                   string // in an error or a warning; "" for neither
	}{
		{"narrow before wide", "tcp", "{match: {source: 10.1.0.0/16}, upstream: a}, {match: {source: 10.0.0.0/8}, upstream: b}, {upstream: c}", ""},
		{"wide before narrow", "tcp", "{match: {source: 10.0.0.0/8}, upstream: a}, {match: {source: 10.1.0.0/16}, upstream: b}, {upstream: c}", never},
		{"the same twice", "tcp", "{match: {source: 10.0.0.1}, upstream: a}, {match: {source: 10.0.0.1}, upstream: b}, {upstream: c}", never},
		{"half of it", "tcp", "{match: {source: 10.0.0.0/9}, upstream: a}, {match: {source: 10.0.0.0/8}, upstream: b}, {upstream: c}", ""},
		{"one of two", "tcp", "{match: {source: 10.0.0.1}, upstream: a}, {match: {source: [10.0.0.1, 10.0.0.2]}, upstream: b}, {upstream: c}", ""},
		{"both of two, by two", "tcp", "{match: {source: 10.0.0.1}, upstream: a}, {match: {source: 10.0.0.2}, upstream: c}, {match: {source: [10.0.0.1, 10.0.0.2]}, upstream: b}, {upstream: c}", never},
		{"another family", "tcp", "{match: {source: 0.0.0.0/0}, upstream: a}, {match: {source: '::/0'}, upstream: b}, {upstream: c}", ""},
		{"IPv6", "tcp", "{match: {source: '2001:db8::/32'}, upstream: a}, {match: {source: '2001:db8::1'}, upstream: b}, {upstream: c}", never},
		{"a share before", "tcp", "{match: {source: 10.0.0.0/8, percent: 50}, upstream: a}, {match: {source: 10.0.0.1}, upstream: b}, {upstream: c}", ""},
		{"all of them before", "tcp", "{match: {source: 10.0.0.0/8, percent: 100}, upstream: a}, {match: {source: 10.0.0.1}, upstream: b}, {upstream: c}", never},
		{"one that falls back before", "tcp", "{match: {source: 10.0.0.0/8}, upstream: a, on_down: fallback}, {match: {source: 10.0.0.1}, upstream: b}, {upstream: c}", ""},
		{"host", "tls", "{match: {host: '*.example.com'}, upstream: a}, {match: {host: b.example.com}, upstream: b}, {upstream: c}", never},
		{"the bare domain", "tls", "{match: {host: '*.example.com'}, upstream: a}, {match: {host: example.com}, upstream: b}, {upstream: c}", ""},
		{"a wildcard below", "tls", "{match: {host: '*.example.com'}, upstream: a}, {match: {host: '*.b.example.com'}, upstream: b}, {upstream: c}", never},
		{"every host before", "tls", "{match: {host: '*'}, upstream: a}, {match: {host: b.example.com}, upstream: b}, {upstream: c}", never},
		{"every host is not every visitor", "tls", "{match: {host: '*'}, upstream: a}, {match: {source: 10.0.0.1}, upstream: b}, {upstream: c}", ""},
		{"host and source before source", "tls", "{match: {host: '*', source: 10.0.0.0/8}, upstream: a}, {match: {source: 10.0.0.1}, upstream: b}, {upstream: c}", ""},
		{"source before host and source", "tls", "{match: {source: 10.0.0.0/8}, upstream: a}, {match: {host: x.example.com, source: 10.0.0.1}, upstream: b}, {upstream: c}", never},
		{"a route for all before", "tcp", "{upstream: a}, {match: {source: 10.0.0.1}, upstream: b}, {match: {source: 10.0.0.2}, upstream: c}", "is never reached"},
		{"all of them by percent before", "tcp", "{match: {percent: 100}, upstream: a}, {upstream: b}, {match: {source: 10.0.0.2}, upstream: c}", "is never reached"},
		{"one for all that falls back before", "tcp", "{upstream: a, on_down: fallback}, {match: {source: 10.0.0.1}, upstream: b}, {upstream: c}", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, warnings, err := read(routed(test.protocol, test.routes))
			got := warnings.Error()
			if err != nil {
				got = err.Error()
			}
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A table of many rules is checked in a time that grows with it, not with its square.
func TestManyRoutesAreReadQuickly(t *testing.T) {
	var b strings.Builder
	const rules = 10_000
	for i := range rules {
		fmt.Fprintf(&b, "{match: {source: 10.%d.%d.0/24}, upstream: a}, ", i/256, i%256)
	}
	b.WriteString("{upstream: b}, ")
	began := time.Now()
	p, _, err := read(routed("tcp", strings.TrimSuffix(b.String(), ", ")))
	if err != nil || len(p.Entrypoints[0].Routes) != rules+1 {
		t.Fatal(err)
	}
	if name := p.Entrypoints[0].Routes[rules-1].Name; name != fmt.Sprintf("a-%d", rules) {
		t.Errorf("the last rule is %q", name)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("%d rules took %s", rules, took)
	}
}

// A check that is more frequent than the default of its timeout needs no other line for that.
func TestTimeoutOfAFrequentCheck(t *testing.T) {
	for health, want := range map[string]time.Duration{
		"tcp: {}":                                  time.Second,
		"tcp: {}, interval: 200ms":                 200 * time.Millisecond,
		"tcp: {}, interval: 5s":                    time.Second,
		"tcp: {}, interval: 200ms, timeout: 100ms": 100 * time.Millisecond,
	} {
		p, _, err := read("entrypoints: [{name: e, addr: \":1\", routes: [{upstream: a}]}]\nupstreams: [{name: a, members: [{address: \"h:1\"}], health: {" + health + "}}]\n")
		if err != nil || p.Upstreams[0].Health.Timeout != want {
			t.Errorf("%s: %v, %v, want %s", health, p.Upstreams, err, want)
		}
	}
}

func TestWhatCollides(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"tcp :80", "tcp :80", true},
		{"tcp :80", "tcp 127.0.0.1:80", true},
		{"tcp 0.0.0.0:80", "tcp 127.0.0.1:80", true},
		{"tcp 0.0.0.0:80", "tcp [::1]:80", false},
		{"tcp [::]:80", "tcp 127.0.0.1:80", true},
		{"tcp 127.0.0.1:80", "tcp [::1]:80", false},
		{"tcp 127.0.0.1:80", "tcp 127.0.0.2:80", false},
		{"tcp 127.0.0.1:80", "tcp 127.0.0.1:81", false},
		{"tcp :0", "tcp :0", false},
		{"tcp :53", "udp :53", false},
		{"tcp 0.0.0.0:80", "tcp localhost:80", true},
	} {
		an, aa, _ := strings.Cut(test.a, " ")
		bn, ba, _ := strings.Cut(test.b, " ")
		a, b := Socket{an, aa, ""}, Socket{bn, ba, ""}
		if a.Collides(b) != test.want || b.Collides(a) != test.want {
			t.Errorf("%s and %s: want %v", test.a, test.b, test.want)
		}
	}
}

func TestConversions(t *testing.T) {
	p, _, err := read(contract)
	if err != nil {
		t.Fatal(err)
	}
	check, ok := p.Upstreams[0].Check()
	want := health.Check{Kind: health.Expect, Send: "PING\r\n", Expect: "+PONG", Interval: 3 * time.Second, Timeout: 2 * time.Second, Rise: 1, Fall: 4, Port: 24, Proxy: 1}
	if diff := cmp.Diff(want, check); diff != "" || !ok {
		t.Errorf("check: want -, got +\n%s", diff)
	}
	if _, ok := p.Upstreams[2].Check(); ok {
		t.Error("an upstream without health has a check")
	}
	if p.Upstreams[0].CheckTLS(p.Upstreams[0].Members[0]) != nil {
		t.Error("a check in the clear speaks TLS")
	}
	for _, test := range []struct{ address, health, want string }{
		{"10.0.0.1:443", "tcp: {}, tls: {}", "10.0.0.1"},
		{"web1:443", "tcp: {}, tls: {}", "web1"},
		{"'[2001:db8::1]:443'", "http: {}, tls: {}", "2001:db8::1"},
		{"unix:/run/x", "http: {}, tls: {}", "localhost"},
		{"10.0.0.1:443", "http: {host: 'a.example.com:8443'}, tls: {}", "a.example.com"},
		{"10.0.0.1:443", "http: {host: a.example.com}, tls: {server_name: b.example.com, insecure: true}", "b.example.com"},
	} {
		p, _, err := read("entrypoints: [{name: e, addr: ':1', routes: [{upstream: a}]}]\nupstreams: [{name: a, members: [{address: " + test.address + "}], health: {" + test.health + "}}]\n")
		if err != nil {
			t.Fatal(err)
		}
		u := p.Upstreams[0]
		if got := u.CheckTLS(u.Members[0]); got == nil || got.ServerName != test.want || got.InsecureSkipVerify != u.Health.TLS.Insecure {
			t.Errorf("%s, %s: %+v, want the name %s", test.address, test.health, got, test.want)
		}
	}
	if got, want := p.Upstreams[1].ProxyProtocol.Emission(), (proxyproto.Emission{Version: proxyproto.V2, Authority: true, UniqueID: true, CRC32C: true, FirstDatagram: true}); got != want {
		t.Errorf("emission %+v, want %+v", got, want)
	}
	if network, address := p.Upstreams[0].Members[2].Network(); network != "unix" || address != "/run/app.sock" {
		t.Errorf("%s %s", network, address)
	}
	if n, ok := p.Entrypoints[3].Routes[0].Tunnel(); !ok || n != tunnel.TCPName(2222) {
		t.Errorf("tunnel %v", n)
	}
	if _, ok := p.Entrypoints[3].Routes[1].Tunnel(); ok {
		t.Error("an upstream of the file is a tunnel")
	}
	var names []string
	for _, n := range p.Tunnels() {
		names = append(names, n.String())
	}
	if diff := cmp.Diff([]string{"name/vpn", "tcp/2222", "name/laptop", "tls/a.example.com"}, names); diff != "" {
		t.Error(diff)
	}
}

// Each change is seen by exactly the comparisons that it concerns.
func TestEqual(t *testing.T) {
	p, _, err := read(contract)
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, by string) Plan {
		t.Helper()
		text := strings.Replace(contract, old, by, 1)
		q, _, err := read(text)
		if err != nil || text == contract {
			t.Fatalf("%s: %v", by, err)
		}
		return q
	}
	if q := change("name: devices", "name: devices # a comment"); !p.Entrypoints[0].Equal(q.Entrypoints[0]) {
		t.Error("a comment makes a difference")
	}
	q := change("max_conns: 5", "max_conns: 6")
	if p.Entrypoints[0].Equal(q.Entrypoints[0]) || !p.Entrypoints[0].SameSocket(q.Entrypoints[0]) || !p.Entrypoints[1].Equal(q.Entrypoints[1]) {
		t.Error("max_conns of an entrypoint")
	}
	q = change("192.168.137.100:23", "192.168.137.100:24")
	if p.Entrypoints[0].SameSocket(q.Entrypoints[0]) {
		t.Error("another port is the same socket")
	}
	q = change("weight: 2", "weight: 3")
	if p.Upstreams[0].Equal(q.Upstreams[0]) || !p.Upstreams[0].SameDial(q.Upstreams[0]) {
		t.Error("weight of a member")
	}
	q = change("slow_start: 10s", "slow_start: 11s")
	if p.Upstreams[0].Equal(q.Upstreams[0]) || !p.Upstreams[0].SameDial(q.Upstreams[0]) || !p.Upstreams[1].Equal(q.Upstreams[1]) {
		t.Error("slow start of an upstream")
	}
	q = change("close_on_down: true", "close_on_down: false")
	if p.Upstreams[0].Equal(q.Upstreams[0]) || !p.Upstreams[0].SameDial(q.Upstreams[0]) {
		t.Error("close_on_down of an upstream")
	}
	q = change("timeout: 2s", "timeout: 3s")
	if p.Upstreams[0].SameDial(q.Upstreams[0]) {
		t.Error("timeout of a check")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(contract)
	f.Add(routed("tls", "{match: {host: '*', source: 10.0.0.0/8}, upstream: a, on_down: fallback}, {upstream: tcp/1}"))
	f.Add(routed("udp", "{upstream: a}"))
	f.Add("upstreams: [{name: a, health: {http: , expect: {send: 1}}, proxy_protocol: {version: v2}, eject: {after: 1}, members: [{address: 'unix:/x'}]}]")
	f.Fuzz(func(t *testing.T, text string) {
		p, _, err := read(text)
		if err != nil {
			if strings.ContainsAny(strings.ReplaceAll(err.Error(), "\n", ""), "\x1b\x00") {
				t.Errorf("control characters: %q", err)
			}
			return
		}
		again(t, p)
	})
}

// What a reload costs before anything is changed.
func BenchmarkRead(b *testing.B) {
	var routes strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&routes, "{name: r%d, match: {source: 10.%d.%d.0/24}, upstream: a}, ", i, i/256, i%256)
	}
	routes.WriteString("{upstream: b}")
	text := routed("tcp", routes.String())
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := read(text); err != nil {
			b.Fatal(err)
		}
	}
}
