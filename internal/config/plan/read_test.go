package plan

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"culvert/internal/config/file"
	"culvert/internal/hostname"
	"culvert/internal/tunnel"
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
				Name: "vpn", Protocol: UDP, Addr: ":1194",
				Flows:       Flows{Profile: VPN, Mode: Session, MaxFlows: 7, MaxFlowsPerSource: 6, MaxPacketsPerSource: 5},
				IdleTimeout: 3 * time.Minute,
				Routes:      []Route{{Name: "name/vpn", Upstream: "name/vpn", OnDown: Fail}},
			},
			{
				Name: "syslog", Protocol: UDP, Addr: "[::1]:514",
				Flows: Flows{Profile: DefaultProfile, Mode: PerPacket}, IdleTimeout: time.Minute,
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
				Connect: Connect{3 * time.Second, 2}, Queue: Queue{Timeout: 5 * time.Second}, Eject: defaultEjection,
			},
			{
				Name: "log", Balance: "round_robin", ProxyProtocol: ProxySend{Version: SendOff, UDPHeader: EveryDatagram},
				Members: []Member{{Address: "[::1]:5140", Name: "[::1]:5140", Weight: 1}},
				Connect: Connect{3 * time.Second, 2}, Queue: Queue{Timeout: 5 * time.Second}, Eject: defaultEjection,
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
	if !p.Equal(q) {
		t.Errorf("what was written is another plan:\n%s\n%s", cmp.Diff(p, q, plain), text)
	}
}
