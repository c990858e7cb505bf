package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"culvert/bench/proc"
	"culvert/bench/systems"
	"culvert/bench/trials"
)

const (
	wanOne  = "MB/s, one download at 100 ms, 200 Mbit/s"
	wanLoss = "MB/s, 16 downloads at 1 % loss"

	plainTCP  = "plain TCP"
	oneLink   = "culvert --links 1"
	fourLinks = "culvert --links 4"

	wanServer = "10.83.0.1"
	wanClient = "10.83.0.2"
)

// wanRow is a run of the row wan.
type wanRow struct {
	*trials.Bench
	wanSettings
	tool  string // gonetem, built
	round int
}

// wanSettings are flags of the row.
type wanSettings struct{ gonetem, congestion string }

// wan measures downloads over IP packets that come late, and some of them never.
func (s *wanSettings) wan(ctx context.Context, b *trials.Bench) error {
	switch {
	case os.Getuid() != 0 || !systems.Found("ip"):
		return errors.New("only root can make network namespaces, with iproute2")
	case s.gonetem == "":
		return errors.New("-gonetem or GONETEM names no folder with the source of gonetem")
	}
	w := &wanRow{Bench: b, wanSettings: *s, tool: filepath.Join(b.Dir, "gonetem")}
	if _, err := proc.Run(ctx, "go", "-C", s.gonetem, "build", "-o", w.tool, "."); err != nil {
		return err
	}
	help, err := proc.Run(ctx, b.Binary, "tcp", "client", "--help")
	if err != nil {
		return err
	}
	links := strings.Contains(help, "--links")
	if !links {
		b.Lack("wan with several links: this culvert has no --links")
	}
	for w.round = range min(b.Rounds, 2) {
		if err := w.measure(ctx, links); err != nil {
			return err
		}
	}
	return nil
}

func (w *wanRow) measure(ctx context.Context, links bool) error {
	ours := systems.CulvertWith(systems.Culvert, "wss")
	one, four := systems.CulvertWith(oneLink, "wss", "--links", "1"), systems.CulvertWith(fourLinks, "wss", "--links", "4")
	if !links {
		one, four = ours, ours
		one.Name = oneLink
	}
	err := w.path(ctx, 0, func(p path) error {
		return errors.Join(w.download(ctx, p, nil, wanOne, 1), w.download(ctx, p, &ours, wanOne, 1))
	})
	if err != nil {
		return err
	}
	return w.path(ctx, 0.01, func(p path) error {
		err := errors.Join(w.download(ctx, p, nil, wanLoss, 16), w.download(ctx, p, &one, wanLoss, 16))
		if !links {
			return err
		}
		return errors.Join(err, w.download(ctx, p, &four, wanLoss, 16))
	})
}

// path is two network namespaces with a long way between.
type path struct{ server, client string }

// in is how a command is run in a namespace.
func in(namespace string) []string { return []string{"ip", "netns", "exec", namespace} }

// path makes one, calls use and takes it away.
func (w *wanRow) path(ctx context.Context, loss float64, use func(path) error) error {
	p := path{fmt.Sprintf("culvert-bench-s%d", os.Getpid()), fmt.Sprintf("culvert-bench-c%d", os.Getpid())}
	for _, ns := range []string{p.server, p.client} {
		if _, err := proc.Run(ctx, "ip", "netns", "add", ns); err != nil {
			return err
		}
		defer func() { _, _ = proc.Run(context.WithoutCancel(ctx), "ip", "netns", "delete", ns) }()
	}
	between, err := proc.Start(proc.Spec{Role: "way", Dir: w.Dir, Log: filepath.Join(w.Dir, "gonetem.log"), Argv: []string{
		w.tool, "-delay", "50ms", "-loss", fmt.Sprint(loss), p.server, wanServer + "/24", p.client, wanClient + "/24",
	}})
	if err != nil {
		return err
	}
	defer between.Stop()
	for ns, device := range map[string]string{p.server: "gn0", p.client: "gn1"} {
		if err := w.shape(ctx, ns, device); err != nil {
			return err
		}
	}
	err = use(p)
	select {
	case <-between.Ended():
		return errors.Join(err, fmt.Errorf("gonetem has ended, %s", between.How()))
	default:
		return err
	}
}

// shape sets a namespace's rate and congestion control, once its device is there.
func (w *wanRow) shape(ctx context.Context, ns, device string) error {
	for end := time.Now().Add(5 * time.Second); ; {
		out, err := proc.Run(ctx, append(in(ns), "ip", "-o", "link", "show", "up", "dev", device)...)
		if err == nil && out != "" {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("gonetem made no %s: %w", device, err)
		}
		if err := trials.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	// A queue of one round trip, as a router of that rate and distance has.
	if _, err := proc.Run(ctx, append(in(ns), "tc", "qdisc", "add", "dev", device, "root", "tbf",
		"rate", "200mbit", "burst", "64kb", "latency", "100ms")...); err != nil {
		return err
	}
	// By the route: the namespace's own setting takes only what the machine allows to everyone.
	_, err := proc.Run(ctx, append(in(ns), "ip", "route", "replace", "10.83.0.0/24", "dev", device, "congctl", w.congestion)...)
	return err
}

// download measures downloads through a system, or straight from the service if there is none.
func (w *wanRow) download(ctx context.Context, p path, s *systems.System, quantity string, streams int) error {
	port, err := systems.FreePort()
	if err != nil {
		return err
	}
	service := net.JoinHostPort(wanClient, port)
	upstream, err := proc.Start(proc.Spec{
		Role: "service", Dir: w.Dir, Log: filepath.Join(w.Dir, "service.log"), Argv: append(in(p.client), w.Self, "service", "-listen", service),
	})
	if err != nil {
		return err
	}
	defer upstream.Stop()
	t := w.Trial(&systems.Running{System: systems.System{Name: plainTCP}}, "wan", w.round)
	from := service
	if s != nil {
		place, err := w.Place()
		if err != nil {
			return err
		}
		place.Host, place.Service, place.ServerIn, place.ClientIn = wanServer, service, in(p.server), in(p.client)
		if t.Running, err = systems.StartIn(ctx, *s, place, systems.Long{}); err != nil {
			return err
		}
		defer t.Stop()
		from = place.PublicAt()
	}
	during := 4 * w.During
	m := t.Meter()
	out, err := proc.Run(ctx, append(in(p.server), w.Self, "downloads", "-addr", from, "-streams", strconv.Itoa(streams), "-during", during.String())...)
	m.Stop()
	if err != nil {
		return err
	}
	bytes, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return err
	}
	t.Note(quantity, float64(bytes)/1e6/during.Seconds())
	return nil
}
