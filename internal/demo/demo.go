// Package demo shows the main job on one machine: a server, two clients in processes of their own and two copies of a
// small site on loopback, with traffic through the tunnels, one client killed in the middle and brought back.
//
// It needs no network, no privileges and nothing installed, and leaves no process and no file behind.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"culvert/internal/app"
	"culvert/internal/auth"
	"culvert/internal/config"
)

// Config is what the demo needs.
type Config struct {
	For        time.Duration // ends after this; 0 means that only the context ends it
	Executable string        // the culvert binary, for the clients' processes
	Version    app.Version
	JSON       bool // the summary alone, as JSON
	Terminal   bool // Out is a terminal: the figures are redrawn in place
	Out        io.Writer
	Log        *slog.Logger
}

const (
	// startTimeout is how long the parts may take to find each other.
	startTimeout = 20 * time.Second
	// The client is killed and brought back at these parts of the demo's time, which is endless's if it has no end.
	killAt, backAt = 0.4, 0.7
	endless        = 20 * time.Second
)

// Run runs the demo until its time is up or the context ends, and prints a summary. It is an error if a request failed
// that another client could have served.
func Run(ctx context.Context, cfg Config) (err error) {
	cfg.Log = slog.New(aside{cfg.Log.Handler()})
	// Who closes the terminal, or reads no further, has had enough too: nothing may be left behind then either.
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer cancel()
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	cfg.Out = audience{cfg.Out, cancel}
	d, err := prepare(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	defer d.listeners.close()

	serverCtx, stopServer := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	var serverErr error
	parts.Go(func() {
		serverErr = d.server.Run(serverCtx)
		cancel()
	})
	defer parts.Wait()
	defer stopServer()
	parts.Go(func() { d.one.serve(serverCtx) })
	parts.Go(func() { d.two.serve(serverCtx) })

	first, second := d.client("one", d.one), d.client("two", d.two)
	defer first.stop()
	defer second.stop()
	if err := errors.Join(first.start(), second.start()); err != nil {
		return err
	}
	if err := d.awaitBoth(ctx); errors.Is(err, context.Canceled) {
		stopServer()
		parts.Wait()
		return serverErr // nil if the user has had enough
	} else if err != nil {
		return err
	}
	if !cfg.JSON {
		d.introduce()
	}
	summary := d.play(ctx, second)
	if err := summary.print(cfg); err != nil {
		return err
	}
	return errors.Join(summary.verdict(), serverErr)
}

// audience is who reads what the demo says.
type audience struct {
	io.Writer
	gone func() // is called when a write fails
}

func (a audience) Write(p []byte) (int, error) {
	n, err := a.Writer.Write(p)
	if err != nil {
		a.gone()
	}
	return n, err
}

// demo is the parts, made and not running yet.
type demo struct {
	cfg       Config
	dir       string // for the server's authority, the clients' state and the token
	token     string
	server    *app.Server
	one, two  *replica
	listeners closers
	tcpPort   uint16
}

func prepare(cfg Config) (d *demo, err error) {
	d = &demo{cfg: cfg}
	defer func() {
		if err != nil {
			d.listeners.close()
			_ = os.RemoveAll(d.dir)
		}
	}()
	if d.dir, err = os.MkdirTemp("", "culvert-demo-"); err != nil {
		return nil, err
	}
	var secret [20]byte
	_, _ = rand.Read(secret[:]) // never fails
	d.token = hex.EncodeToString(secret[:])
	if err := os.WriteFile(d.tokenFile(), []byte(d.token+"\n"), 0o600); err != nil {
		return nil, err
	}
	if d.one, err = newReplica("one", &d.listeners); err != nil {
		return nil, err
	}
	if d.two, err = newReplica("two", &d.listeners); err != nil {
		return nil, err
	}
	if d.tcpPort, err = freePort(); err != nil {
		return nil, err
	}
	settings := config.NewServer(config.Mixed)
	settings.ControlAddr, settings.DataAddr = "127.0.0.1", "127.0.0.1"
	settings.ControlPort, settings.Port = 0, 0
	settings.AutoTLSSAN = []string{"127.0.0.1"}
	settings.AutoTLSPath = filepath.Join(d.dir, "server")
	settings.Token = auth.NewSecret(d.token)
	settings.DrainTimeout = time.Second // the demo's own visitors are all there is to wait for
	if d.server, err = app.NewServer(settings, cfg.Version, cfg.Log); err != nil {
		return nil, err
	}
	return d, d.server.Listen()
}

func (d *demo) tokenFile() string { return filepath.Join(d.dir, "token") }

// client is the process of one client, beside one copy of the site.
func (d *demo) client(id string, beside *replica) *process {
	return &process{
		executable: d.cfg.Executable,
		args: []string{
			"client", "--url", "wss://" + d.server.ControlAddr().String(), "--token-file", d.tokenFile(),
			"--id", id, "--state-dir", filepath.Join(d.dir, id), "--log-level", "warn",
			"--upstream", "http://" + beside.web.Addr().String(),
			"--upstream", strconv.Itoa(int(d.tcpPort)) + "=" + beside.lines.Addr().String(),
		},
		out: d.cfg.Log,
	}
}

// awaitBoth waits until both copies of the site have answered through the tunnels.
func (d *demo) awaitBoth(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	v := newVisitor(d)
	defer v.close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	type sight struct {
		kind int
		by   string
	}
	seen := make(map[sight]bool)
	for {
		for kind, visit := range []func(context.Context) (string, int, error){v.page, v.line} {
			if by, _, err := visit(ctx); err == nil {
				seen[sight{kind, by}] = true
			}
		}
		if len(seen) == 4 { // both kinds from both
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) { // by the user, or by the server's end
				return ctx.Err()
			}
			return fmt.Errorf("the clients did not come up within %s: run with --log-level debug to see why", startTimeout)
		}
	}
}

func (d *demo) introduce() {
	control, site := d.server.ControlAddr(), d.server.HTTPAddr()
	fmt.Fprintf(d.cfg.Out, `Culvert demo: all of it on this machine, and nothing is left behind.

  visitors ──> server ══ encrypted tunnel ══ client one ──> site, copy one
                      ══ encrypted tunnel ══ client two ──> site, copy two

Try by hand while it runs:
  curl http://%[2]s/
      the site: the server hands each request to one of the clients
  curl telnet://127.0.0.1:%[3]d
      a TCP service through the same tunnels: type a line
  %[4]s status --url wss://%[1]s --token-file %[5]s
      which clients are connected, and what they offer
  curl -k https://%[1]s/metrics -H "Authorization: Bearer $(cat %[5]s)"
      the figures for Prometheus
Ctrl-C ends it.

`, control, site, d.tcpPort, d.cfg.Executable, d.tokenFile())
}

// play sends traffic and has the second client killed and brought back, until the time is up or the context ends.
func (d *demo) play(ctx context.Context, second *process) summary {
	length := d.cfg.For
	if length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
	} else {
		length = endless
	}
	load := newLoad(d)
	var running sync.WaitGroup
	running.Go(func() { load.run(ctx) })
	s := newScreen(d.cfg, load)
	kill := time.NewTimer(time.Duration(killAt * float64(length)))
	back := time.NewTimer(time.Duration(backAt * float64(length)))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.draw()
		case <-kill.C:
			load.cut() // first: what the kill cuts is noticed before the process has been waited for
			second.stop()
			s.event("client two is killed (SIGKILL); client one takes its share")
		case <-back.C:
			if err := second.start(); err != nil {
				s.event("client two did not come back: " + err.Error())
			} else {
				s.event("client two is started again and takes its share back")
			}
		case <-ctx.Done():
			running.Wait()
			return load.summary()
		}
	}
}

// closers are the listeners that are opened before anything serves them.
type closers []io.Closer

func (c *closers) close() {
	for _, l := range *c {
		_ = l.Close()
	}
}

// freePort finds a port that nobody has. Another program may take it before it is used; the demo then says so.
func freePort() (uint16, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

// aside passes what its parts have to say in passing on only where debug is wanted: the demo tells its own story.
type aside struct{ slog.Handler }

func (h aside) Enabled(ctx context.Context, level slog.Level) bool {
	if level < slog.LevelWarn {
		level = slog.LevelDebug
	}
	return h.Handler.Enabled(ctx, level)
}

func (h aside) WithAttrs(attrs []slog.Attr) slog.Handler { return aside{h.Handler.WithAttrs(attrs)} }
func (h aside) WithGroup(name string) slog.Handler       { return aside{h.Handler.WithGroup(name)} }
