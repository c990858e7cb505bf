package dataplane

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"culvert/internal/accesslog"
	"culvert/internal/config/file"
	"culvert/internal/config/plan"
	"culvert/internal/control"
	"culvert/internal/proxy"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// read is the plan of a file's text. In it, $NAME stands for what vars have.
func read(t testing.TB, text string, vars map[string]string) plan.Plan {
	t.Helper()
	text = os.Expand(text, func(name string) string { return vars[name] })
	doc, err := file.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := plan.Read(doc, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start makes a data plane that ends with the test.
func start(t testing.TB) *DataPlane {
	t.Helper()
	reg := prometheus.NewRegistry()
	d := New(Config{
		Addr: "127.0.0.1", Reserved: map[uint16]string{1: "a test's"}, Metrics: proxy.NewMetrics(reg, proxy.Mode{TCP: true}),
		UDPMetrics: proxy.NewUDPMetrics(reg), Counters: NewCounters(reg), Records: accesslog.New(accesslog.Config{Records: 64}),
		Log: slog.New(slog.DiscardHandler),
	})
	reg.MustRegister(d.Collector())
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	t.Cleanup(func() {
		if _, err := reg.Gather(); err != nil {
			t.Error(err)
		}
		ended, end := context.WithCancel(context.Background())
		end()
		d.Shutdown(ended)
		cancel()
		running.Wait()
	})
	return d
}

func apply(t testing.TB, d *DataPlane, p plan.Plan) {
	t.Helper()
	if err := d.Apply(p); err != nil {
		t.Fatal(err)
	}
}

// named is a service that says its name and then what it is told.
func named(t testing.TB, name string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	ctx, end := context.WithCancel(context.Background())
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				_, _ = io.WriteString(c, name+"\n")
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); end(); serving.Wait() })
	return ln.Addr().String()
}

// nextPort is where the search for a free port goes on, so that none is given twice. It begins anywhere, for the tests
// of other packages may be looking too.
var firstPort, nextPort = rand.Uint32N(12_000), atomic.Uint32{}

// free is an address that nobody listens on, and whose port the kernel gives to no connection meanwhile.
func free(t testing.TB, network string) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(int(20_000 + (firstPort+nextPort.Add(1))%12_000))
		if network == "udp" {
			if c, err := net.ListenPacket("udp", ":"+port); err == nil {
				_ = c.Close()
				return "127.0.0.1:" + port
			}
			continue
		}
		if ln, err := net.Listen("tcp", ":"+port); err == nil {
			_ = ln.Close()
			return "127.0.0.1:" + port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// visitor is a connection from a source, with the name that the service said; "" if it said none.
type visitor struct {
	net.Conn
	lines *bufio.Reader
	name  string
}

func visit(t testing.TB, from, to string) *visitor {
	t.Helper()
	v, err := tryVisit(t, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tryVisit(t testing.TB, from, to string) (*visitor, error) {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	v := &visitor{Conn: c, lines: bufio.NewReader(c)}
	name, err := v.lines.ReadString('\n')
	v.name = strings.TrimSpace(name)
	return v, err
}

// hears says whether the service on the other side still answers.
func (v *visitor) hears(word string) bool {
	_, _ = io.WriteString(v, word+"\n")
	answer, err := v.lines.ReadString('\n')
	return err == nil && strings.TrimSpace(answer) == word
}

func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-tick.C
	}
}

func refuses(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

const devices = `
entrypoints:
  - name: devices
    addr: $addr
    routes:
      - {name: debug-box, match: {source: [127.0.0.140]}, upstream: debug}
      - {upstream: app}
upstreams:
  - {name: app, members: [{address: "$app1"}, {address: "$app2"}]}
  - {name: debug, members: [{address: "$debug"}]}
`

// client is a member that dials a service, as a client of a tunnel does, and that may be away.
type client struct {
	*upstream.Static
	away, silent atomic.Bool
	emit         atomic.Pointer[proxyproto.Emission] // what the last visit wished
}

func (c *client) Usable() bool { return !c.away.Load() }

func (c *client) Dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	c.emit.Store(new(v.Emit))
	if c.silent.Load() {
		<-ctx.Done()
		return upstream.Dialed{}, &upstream.DialError{Reason: upstream.TimedOut, Err: ctx.Err()}
	}
	return c.Static.Dial(ctx, v)
}

func newClient(name, addr string) *client {
	return &client{Static: upstream.NewStatic(upstream.StaticConfig{Name: name, Network: "tcp", Address: addr})}
}

func offer(t testing.TB, d *DataPlane, name string, m upstream.Member) control.Publication {
	t.Helper()
	n, err := tunnel.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Publish(control.Offered{Name: n, Member: m})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustName(t testing.TB, s string) tunnel.Name {
	t.Helper()
	n, err := tunnel.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
