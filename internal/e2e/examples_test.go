//go:build linux

package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/internal/proxyproto"
)

// The tests below start every file of examples/ as it stands there, but for its addresses and its low ports, and send
// traffic through it.

const examples = "../../examples/"

func TestEveryExampleIsTried(t *testing.T) {
	source, err := os.ReadFile("examples_test.go")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(examples + "*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("examples %v, error %v", files, err)
	}
	for _, file := range files {
		if name := filepath.Base(file); !strings.Contains(string(source), `"`+name+`"`) {
			t.Errorf("no test starts %s", name)
		}
	}
}

// Where an example's addresses are in the tests.
const (
	exampleNet  = "127.0.137." // the servers and one device
	deviceNet   = "127.0.100." // the other devices
	exampleHost = "127.0.137.200"
	balancerNet = "127.0.10."
)

var (
	everyAddress = regexp.MustCompile(`(addr: ):(\d+)`)
	lowPort      = regexp.MustCompile(`(\.\d+):(\d{2,3})\b`)
)

// example writes an example into a folder, with addresses of the loopback interface and ports that need no privilege.
// Host stands for every address of the machine.
func example(t *testing.T, dir, name, host string) (file string) {
	t.Helper()
	b, err := os.ReadFile(examples + name)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(
		"192.168.137.", exampleNet, "192.168.100.", deviceNet, "203.0.113.7", host, "10.0.0.0/8", balancerNet+"0/24",
		"token_file: token", "token_file: "+dir+"/token",
	).Replace(string(b))
	text = everyAddress.ReplaceAllString(text, "${1}"+host+":$2")
	text = lowPort.ReplaceAllStringFunc(text, func(s string) string {
		host, port, _ := strings.Cut(s, ":")
		return host + ":" + examplePort(port)
	})
	return write(t, dir, name, text, 0o600)
}

// examplePort is what a port below 1024 is in the tests.
func examplePort(low string) string { return "12" + fmt.Sprintf("%03s", low) }

// startExample starts a load balancer with an example.
func startExample(t *testing.T, name string) *process {
	t.Helper()
	return start(t, program{argv: []string{culvert(), "lb", "--config", example(t, t.TempDir(), name, exampleHost), "--drain-timeout", "2s"}})
}

// greeter starts a TCP service that greets with its name. Stop ends it.
func greeter(t *testing.T, name, addr string) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintln(c, name) // a check has gone by now
			c.Close()
		}
	}()
	stop = sync.OnceFunc(func() { l.Close(); <-done })
	t.Cleanup(stop)
	return stop
}

// greeting is the name of the service that a visitor from an address gets.
func greeting(ctx context.Context, source, addr string) (string, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// greetings counts who serves a number of visitors from an address, each of whom must be served.
func greetings(t *testing.T, source, addr string, visitors int) map[string]int {
	t.Helper()
	served := map[string]int{}
	for range visitors {
		name, err := greeting(t.Context(), source, addr)
		if err != nil {
			t.Fatalf("a visitor from %s: %v", source, err)
		}
		served[name]++
	}
	return served
}

func TestExampleTCPBalance(t *testing.T) {
	stop := greeter(t, "app1", exampleNet+"101:12023")
	greeter(t, "app2", exampleNet+"102:12023")
	front := exampleNet + "100:12023"
	startExample(t, "tcp-balance.yaml")
	accepts(t, "tcp", front)
	// The connection of accepts may have its turn among them.
	if got := greetings(t, "127.0.0.1", front, 20); min(got["app1"], got["app2"]) < 9 {
		t.Errorf("20 visitors: %v, want 10 each", got)
	}
	stop()
	if got := greetings(t, "127.0.0.1", front, 20); got["app2"] != 20 {
		t.Errorf("20 visitors while app1 is away: %v, want all with app2", got)
	}
}

func TestExampleTCPDivertBySource(t *testing.T) {
	greeter(t, "app1", exampleNet+"101:12023")
	greeter(t, "app2", exampleNet+"102:12023")
	stop := greeter(t, "test", exampleNet+"103:12023")
	front := exampleNet + "100:12023"
	startExample(t, "tcp-divert-by-source.yaml")
	accepts(t, "tcp", front)
	for _, device := range []string{deviceNet + "1", deviceNet + "2"} {
		if got := greetings(t, device, front, 10); got["test"] != 10 {
			t.Errorf("the device %s: %v, want all with test", device, got)
		}
	}
	if got := greetings(t, deviceNet+"3", front, 10); got["app1"] != 5 || got["app2"] != 5 {
		t.Errorf("another device: %v, want half each with app1 and app2", got)
	}
	stop()
	eventually(t, patience, "the devices are served in production while the test server is away", func(ctx context.Context) error {
		name, err := greeting(ctx, deviceNet+"1", front)
		if err == nil && !strings.HasPrefix(name, "app") {
			err = fmt.Errorf("served by %q", name)
		}
		return err
	})
	greeter(t, "test", exampleNet+"103:12023")
	eventually(t, patience, "the devices are back with the test server", func(ctx context.Context) error {
		name, err := greeting(ctx, deviceNet+"1", front)
		if err == nil && name != "test" {
			err = fmt.Errorf("served by %q", name)
		}
		return err
	})
}

func TestExampleTCPMap(t *testing.T) {
	greeter(t, "prod", exampleNet+"129:12023")
	greeter(t, "test", exampleNet+"131:12023")
	front := exampleHost + ":12023"
	startExample(t, "tcp-map.yaml")
	accepts(t, "tcp", front)
	if got := greetings(t, exampleNet+"140", front, 10); got["test"] != 10 {
		t.Errorf("the device: %v, want all with test", got)
	}
	if got := greetings(t, exampleNet+"141", front, 10); got["prod"] != 10 {
		t.Errorf("another device: %v, want all with prod", got)
	}
}

// udpGreeter starts a UDP service that answers each datagram with its name and the address that it came from.
func udpGreeter(t *testing.T, name, addr string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = fmt.Fprintf(udpTo{pc, from}, "%s %s %s", name, from, buf[:n]) // may be lost like any other
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
}

// udpTo writes datagrams to one address.
type udpTo struct {
	net.PacketConn
	addr net.Addr
}

func (t udpTo) Write(p []byte) (int, error) { return t.WriteTo(p, t.addr) }

// udpDevice is a UDP socket of a device.
func udpDevice(t *testing.T, source, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
	c, err := d.DialContext(t.Context(), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// keepsFlow sends datagrams, each until it is answered, and says who answered and from what address it saw them come. More
// than one of either is a failure: the flow did not stay where it was.
func keepsFlow(t *testing.T, c net.Conn, datagrams int) (name, seen string) {
	t.Helper()
	buf := make([]byte, 2048)
	for i := range datagrams {
		text := fmt.Sprintf("datagram %d", i)
		eventually(t, patience, "an answer to "+text, func(context.Context) error {
			if _, err := fmt.Fprint(c, text); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			for {
				n, err := c.Read(buf)
				if err != nil {
					return err
				}
				parts := strings.SplitN(string(buf[:n]), " ", 3)
				if len(parts) < 3 || parts[2] != text {
					continue // a second answer to the one before
				}
				if name != "" && (parts[0] != name || parts[1] != seen) {
					t.Fatalf("datagram %d went to %s from %s, those before to %s from %s", i, parts[0], parts[1], name, seen)
				}
				name, seen = parts[0], parts[1]
				return nil
			}
		})
	}
	return name, seen
}

func TestExampleUDPMap(t *testing.T) {
	for number, name := range map[string]string{"129": "prod1", "130": "prod2", "131": "test"} {
		udpGreeter(t, name, exampleNet+number+":5005")
	}
	front := exampleHost + ":5005"
	startExample(t, "udp-map.yaml")
	if name, _ := keepsFlow(t, udpDevice(t, exampleNet+"140", front), 20); name != "test" {
		t.Errorf("the device is answered by %s", name)
	}
	served := map[string]int{}
	for range 6 {
		name, _ := keepsFlow(t, udpDevice(t, exampleNet+"141", front), 20)
		served[name]++
	}
	if served["prod1"] != 3 || served["prod2"] != 3 {
		t.Errorf("six flows: %v, want three each with prod1 and prod2", served)
	}
}

func TestExampleUDPVPN(t *testing.T) {
	for number, name := range map[string]string{"129": "vpn1", "130": "vpn2", "131": "test"} {
		udpGreeter(t, name, exampleNet+number+":1194")
	}
	front := exampleHost + ":1194"
	startExample(t, "udp-vpn.yaml")
	if name, _ := keepsFlow(t, udpDevice(t, exampleNet+"140", front), 20); name != "test" {
		t.Errorf("the device is answered by %s", name)
	}
	served := map[string]bool{}
	for n := range 20 {
		source := fmt.Sprintf("%s%d", deviceNet, 10+n)
		first, seen := keepsFlow(t, udpDevice(t, source, front), 3)
		again, other := keepsFlow(t, udpDevice(t, source, front), 3) // from another port
		if again != first || other == seen {
			t.Errorf("%s is answered by %s (from %s), then by %s (from %s)", source, first, seen, again, other)
		}
		served[first] = true
	}
	if len(served) != 2 {
		t.Errorf("20 devices are served by %v", served)
	}
}

func TestExampleHAOfDigitalOcean(t *testing.T) {
	tryHA(t, "ha-tunnels-digitalocean.yaml", proxyproto.V1, "send-proxy", "check inter 100ms")
}

func TestExampleHAOfAWS(t *testing.T) {
	tryHA(t, "ha-tunnels-aws.yaml", proxyproto.V2, "send-proxy-v2", "check port 8081 check-send-proxy inter 100ms")
}

// tryHA starts the two servers of an example and their clients, with HAProxy in the place of the cloud's load balancer.
// The service must see the visitor's own address, and visitors must be served when a server is killed.
func tryHA(t *testing.T, name string, version proxyproto.Version, header, check string) {
	need(t, "haproxy")
	service, connections := proxyListener(t)
	var backends string
	servers := make([]*server, 2)
	for i := range servers {
		host := fmt.Sprintf("%s%d", exampleNet, 201+i)
		s := &server{control: host + ":8123", data: host + ":8000", token: rand.Text(), state: t.TempDir()}
		write(t, s.state, "token", s.token+"\n", 0o600)
		s.args = []string{culvert(), "server", "--config", example(t, s.state, name, host), "--control-addr", host, "--data-addr", host, "--ready-grace", "0", "--drain-timeout", "2s"}
		s.again(t)
		if _, err := net.Dial("tcp", host+":"+examplePort("80")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without a client the port is not closed to the balancer's check: %v", err)
		}
		s.client(t, "--upstream", "name/web="+service+",name/web-tls="+service)
		backends += fmt.Sprintf("  server s%d %s:%s source %s%d %s %s\n", i, host, examplePort("80"), balancerNet, 1+i, header, check)
		servers[i] = s
	}
	httpCheck := ""
	if strings.Contains(check, "8081") {
		httpCheck = "  option httpchk GET /readyz\n"
	}
	front := freeAddr(t)
	startHAProxy(t, "listen web\n  mode tcp\n  option redispatch\n  retries 3\n  bind "+front+"\n"+httpCheck+backends)
	visit := func() bool { // whether it was served, with the visitor's own address
		from, _ := say(t, front, "hello")
		timer := time.NewTimer(time.Second)
		defer timer.Stop()
		for {
			select {
			case got := <-connections:
				if got.rest == "" {
					continue // a check, or a connection of a visitor before
				}
				if got.err != nil || got.header.Version != version || got.header.Source != from {
					t.Errorf("the service sees %+v, %v; the visitor is %s", got.header, got.err, from)
				}
				return true
			case <-timer.C:
				return false
			}
		}
	}
	served := func(what string) {
		eventually(t, patience, what, func(context.Context) error {
			if !visit() {
				return errors.New("not served")
			}
			return nil
		})
	}
	accepts(t, "tcp", front)
	served("a visitor is served")
	servers[0].kill(t)
	served("a visitor is served after a server was killed")
	for range 10 {
		if !visit() {
			t.Error("a visitor is not served")
		}
	}
}
