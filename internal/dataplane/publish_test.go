package dataplane

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"culvert/internal/admin"
	"culvert/internal/control"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// The header that the file wants is what a tunnel's client is told, for it is the client that sends it.
func TestClientsLearnWhichPROXYHeaderTheirServicesGet(t *testing.T) {
	d := start(t)
	const text = `
entrypoints:
  - {name: tcp, addr: "$tcp", routes: [{upstream: app}]}
  - {name: udp, protocol: udp, addr: "$udp", routes: [{upstream: log}]}
upstreams:
  - {name: app, proxy_protocol: $header, members: [{tunnel: name/app}]}
  - {name: log, proxy_protocol: {version: v2, udp_header: first}, members: [{tunnel: name/log}]}
`
	vars := map[string]string{"tcp": free(t, "tcp"), "udp": free(t, "udp"), "header": "{version: v2, tlvs: [unique_id]}"}
	apply(t, d, read(t, text, vars))
	app := newClient("app", named(t, "app"))
	log := &client{Static: upstream.NewStatic(upstream.StaticConfig{Name: "log", Network: "udp", Address: echoes(t, "log")})}
	offer(t, d, "name/app", app)
	offer(t, d, "name/log", log)
	await(t, "a visit", func() bool { _, _ = tryVisit(t, "127.0.0.1", vars["tcp"]); return app.emit.Load() != nil })
	if got, want := app.emit.Load(), (proxyproto.Emission{Version: proxyproto.V2, UniqueID: true}); got == nil || *got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_ = flow(t, "127.0.0.1", vars["udp"])("x")
	if got, want := log.emit.Load(), (proxyproto.Emission{Version: proxyproto.V2, FirstDatagram: true}); got == nil || *got != want {
		t.Errorf("of datagrams: got %+v, want %+v", got, want)
	}
	vars["header"] = "v1"
	apply(t, d, read(t, text, vars))
	_, _ = tryVisit(t, "127.0.0.1", vars["tcp"])
	if got, want := *app.emit.Load(), (proxyproto.Emission{Version: proxyproto.V1}); got != want {
		t.Errorf("after a reload: got %+v, want %+v", got, want)
	}
}

func TestTheFileAndClientsShareUpstreams(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, `
entrypoints: [{name: in, addr: "$addr", routes: [{upstream: mixed}]}]
upstreams: [{name: mixed, members: [{tunnel: name/laptop, weight: 2}, {address: "$fixed", backup: true}]}]
`, map[string]string{"addr": addr, "fixed": named(t, "fixed")}))
	if got := visit(t, "127.0.0.1", addr).name; got != "fixed" {
		t.Errorf("without a client: got %s, want fixed", got)
	}
	p := offer(t, d, "name/laptop", newClient("laptop", named(t, "laptop")))
	if got := visit(t, "127.0.0.1", addr).name; got != "laptop" {
		t.Errorf("with a client: got %s, want laptop", got)
	}
	p.(control.HealthPublication).Health(false, errors.New("its check fails"))
	if got := visit(t, "127.0.0.1", addr).name; got != "fixed" {
		t.Errorf("with a client whose service is down: got %s, want fixed", got)
	}
	p.(control.HealthPublication).Health(true, nil)
	if got := visit(t, "127.0.0.1", addr).name; got != "laptop" {
		t.Errorf("with the service back: got %s, want laptop", got)
	}
	p.Withdraw()
	if got := visit(t, "127.0.0.1", addr).name; got != "fixed" {
		t.Errorf("after the client: got %s, want fixed", got)
	}
	if got := len(d.State().Upstreams); got != 1 {
		t.Errorf("got %d upstreams, want that of the file alone", got)
	}
}

func TestAPortFollowsItsMembers(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	_, port, _ := net.SplitHostPort(addr)
	name := "tcp/" + port
	p := offer(t, d, name, newClient("a", named(t, "a")))
	if got := visit(t, "127.0.0.1", addr).name; got != "a" {
		t.Fatalf("got %s, want a", got)
	}
	p.(control.HealthPublication).Health(false, errors.New("down"))
	await(t, "the port to close", func() bool { return refuses(addr) })
	if err := d.Ready(name); err == nil {
		t.Error("a tunnel without a usable member is ready")
	}
	p.(control.HealthPublication).Health(true, nil)
	await(t, "the port to open", func() bool { return !refuses(addr) })
	if err := d.Ready(name); err != nil {
		t.Error(err)
	}
	p.Withdraw()
	await(t, "the port to close for good", func() bool { return refuses(addr) && len(d.State().Entrypoints) == 0 })
	if got := d.State().Upstreams; len(got) != 0 {
		t.Errorf("got %+v, want nothing left", got)
	}
}

func TestAPortClosesForAClientThatComesWithItsServiceDown(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	_, port, _ := net.SplitHostPort(addr)
	offer(t, d, "tcp/"+port, newClient("a", named(t, "a"))).Withdraw()
	p, err := d.Publish(control.Offered{
		Name: mustName(t, "tcp/"+port), Member: newClient("b", named(t, "b")), Offer: tunnel.Offer{Down: "its check has not ended"},
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the port to close", func() bool { return refuses(addr) })
	if m := d.State().Upstreams[0].Members[0]; m.State != admin.MemberDown || m.LastError != "its check has not ended" {
		t.Errorf("the state is %s for %q, want down and why", m.State, m.LastError)
	}
	p.(control.HealthPublication).Health(true, nil)
	await(t, "the port to open", func() bool { return !refuses(addr) })
}

// hello asks an entrypoint of TLS for a host and gives what the service that it is led to says, or why there is none.
func hello(t testing.TB, addr, host string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(c, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	err = tc.Handshake()
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record): // the service is none of TLS: it says its name, of five letters
		return string(record.RecordHeader[:])
	default:
		return fmt.Sprint(err)
	}
}

func TestTLSIsRoutedByTheHostsOfTheFileAndOfClients(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	apply(t, d, read(t, `
entrypoints: [{name: tls, protocol: tls, addr: "$addr", when_empty: reset, routes: [{match: {host: file.example.com}, upstream: app}]}]
upstreams: [{name: app, members: [{address: "$app"}]}]
`, map[string]string{"addr": addr, "app": named(t, "aFile")}))
	offer(t, d, "tls/*.example.com", newClient("wild", named(t, "aWild")))
	exact := offer(t, d, "tls/api.example.com", newClient("api", named(t, "exact")))
	for host, want := range map[string]string{
		"file.example.com": "aFile", "api.example.com": "exact", "www.example.com": "aWild", "example.org": "remote error: tls: unrecognized name",
	} {
		if got := hello(t, addr, host); got != want {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
	}
	exact.Withdraw()
	if got := hello(t, addr, "api.example.com"); got != "aWild" {
		t.Errorf("after the client: got %q, want aWild", got)
	}
}

func TestAHostNeedsAnEntrypointOfTLS(t *testing.T) {
	d := start(t)
	_, err := d.Publish(control.Offered{Name: mustName(t, "tls/api.example.com"), Member: newClient("a", "127.0.0.1:1")})
	if err == nil || !strings.Contains(err.Error(), "--tls-port") {
		t.Errorf("got %v, want the remedy", err)
	}
}
