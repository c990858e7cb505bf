package systems

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"culvert/bench/load"
	"culvert/bench/proc"
)

// Long is a long way between client and server. The zero value is none.
type Long struct {
	RTT  time.Duration
	Mbit int // in each direction; 0 for no limit
}

// Running is a system that serves visitors. Stop must be called.
type Running struct {
	System
	Place
	Servers, Clients []*proc.Process

	way *proc.Process
}

// StartIn starts a system in a place, and one client of it. It does not wait until visitors are served.
func StartIn(ctx context.Context, s System, p Place, way Long) (_ *Running, err error) {
	r := &Running{System: s, Place: p}
	defer func() {
		if err != nil {
			r.Stop()
		}
	}()
	if r.Dial == "" {
		r.Dial = r.TunnelAt()
	}
	if way != (Long{}) {
		if err := r.lengthen(way); err != nil {
			return nil, err
		}
	}
	if s.Prepare != nil {
		if err := s.Prepare(ctx, r.Place); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", s.Name, err)
		}
	}
	server, err := proc.Start(proc.Spec{
		Role: "server", Argv: slices.Concat(r.ServerIn, s.Server(r.Place)), Dir: r.Dir, Log: r.Path("server.log"),
	})
	if err != nil {
		return nil, err
	}
	r.Servers = append(r.Servers, server)
	if s.Tunnel() {
		if _, err := r.AddClient(r.Public); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// lengthen puts a long way between client and server.
func (r *Running) lengthen(way Long) error {
	port, err := FreePort()
	if err != nil {
		return err
	}
	r.Dial = "127.0.0.1:" + port
	r.way, err = proc.Start(proc.Spec{
		Role: "way", Dir: r.Dir, Log: r.Path("way.log"),
		Argv: []string{r.Self, "way", "-listen", r.Dial, "-to", r.TunnelAt(), "-rtt", way.RTT.String(), "-mbit", fmt.Sprint(way.Mbit)},
	})
	return err
}

// AddClient starts one more client, which offers the service at a port.
func (r *Running) AddClient(port string) (*proc.Process, error) {
	p := r.Place
	p.Public = port
	n := len(r.Clients)
	if err := os.MkdirAll(r.Path(fmt.Sprintf("state-%d", n)), 0o700); err != nil {
		return nil, err
	}
	c, err := proc.Start(proc.Spec{
		Role: "client", Argv: slices.Concat(r.ClientIn, r.Client(p, n)), Dir: r.Dir, Log: r.Path(fmt.Sprintf("client-%d.log", n)),
	})
	if err != nil {
		return nil, err
	}
	r.Clients = append(r.Clients, c)
	return c, nil
}

// readiness is how long a system may take until visitors are served.
const readiness = 15 * time.Second

// Ready waits until a visitor of an address is served. It fails at once when a process of the system ends.
func (r *Running) Ready(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readiness)
	defer cancel()
	retry := time.NewTicker(30 * time.Millisecond)
	defer retry.Stop()
	for again := 0; ; {
		err := load.Fresh(addr, "/")
		if err == nil {
			return nil
		}
		for _, p := range slices.Concat(r.Servers, r.Clients) {
			select {
			case <-p.Ended():
				// A client may have come before its server, which some take for a reason to end.
				if p.Role != "client" || again == 20 || len(r.Clients) > 1 {
					return fmt.Errorf("%s serves nobody: %s", r.Name, r.LastWords())
				}
				again++
				r.Clients = nil
				if _, err := r.AddClient(r.Public); err != nil {
					return err
				}
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s serves nobody: %w: %s", r.Name, errors.Join(ctx.Err(), err), r.LastWords())
		case <-retry.C:
		}
	}
}

// LastWords says, in one line, which processes have ended, and how the logs end.
func (r *Running) LastWords() string {
	logs, _ := filepath.Glob(r.Path("*.log"))
	var b strings.Builder
	for i, p := range slices.Concat(r.Servers, r.Clients) {
		select {
		case <-p.Ended():
			fmt.Fprintf(&b, "%s %d has ended, %s; ", p.Role, i, p.How())
		default:
		}
	}
	for _, path := range logs {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if size, err := f.Seek(0, io.SeekEnd); err == nil {
			_, _ = f.Seek(max(0, size-300), io.SeekStart)
			text, _ := io.ReadAll(io.LimitReader(f, 300))
			fmt.Fprintf(&b, "%s: %s; ", filepath.Base(path), strings.Join(strings.Fields(string(text)), " "))
		}
		f.Close()
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// ServerTree is the processes of the server, as they are now.
func (r *Running) ServerTree() []int { return trees(r.Servers) }

// ClientTree is the processes of all clients, as they are now.
func (r *Running) ClientTree() []int { return trees(r.Clients) }

func trees(ps []*proc.Process) []int {
	var all []int
	for _, p := range ps {
		all = append(all, p.Tree()...)
	}
	return all
}

// Stop ends all processes, clients first.
func (r *Running) Stop() {
	all := slices.Concat(r.Clients, r.Servers)
	if r.way != nil {
		all = append(all, r.way)
	}
	for _, p := range all {
		p.Stop()
	}
}
