package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/internal/entrypoint"
	"culvert/internal/handover"
	"culvert/internal/systemd"
)

// Host is what of the machine concerns a server that may be replaced while it serves. The zero value is nothing.
type Host struct {
	Sockets *handover.Sockets // nil: sockets are opened
	Manager *systemd.Manager  // nil: nobody wants to know
	Program handover.Program  // what takes the server's place when it is asked to upgrade
}

// forVisitors is for sockets that visitors come to: the process whose place this one takes serves them until its clients
// have come over.
func (h Host) forVisitors() entrypoint.Inheritance {
	return entrypoint.Inheritance{Sockets: h.Sockets, Turn: h.Sockets.Turn()}
}

// atOnce is for sockets that are served from the start.
func (h Host) atOnce() entrypoint.Inheritance { return entrypoint.Inheritance{Sockets: h.Sockets} }

// Alive returns when the server could do what it is for: whoever waits for a lock that nobody gives back waits here too.
func (s *Server) Alive() {
	s.sessions.Clients()
	s.plane.Open()
}

// upgradeTimeout is how long the process that is to take over may take to come up.
const upgradeTimeout = time.Minute

// Upgrade starts the program anew with all sockets and, when it is ready, has Run leave the server's place to it. On
// failure the server goes on as before, and the error says why.
func (s *Server) Upgrade(ctx context.Context) error {
	if s.host.Sockets == nil || s.host.Program.Path == "" {
		return errors.New("this server was not started as a program of its own")
	}
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	s.log.Info("starting the process that takes over", "program", s.host.Program.Path)
	next, err := s.host.Sockets.Upgrade(ctx, s.host.Program)
	if err != nil {
		return err
	}
	s.successor <- next // has room: there is one at most
	return nil
}

// comeOver is how long clients may take to go over to the process that takes over.
const comeOver = 10 * time.Second

// handOver is the end of a server whose place another process takes. Nobody is refused meanwhile: what comes to a port that
// this process does not accept from any more waits for the other one, which has the same socket.
func (s *Server) handOver(next *handover.Successor, fail func(error)) []step {
	return []step{
		// The control port first, so that clients who come back find the new process, and balancers ask it how it is.
		{"leave the control port", 2 * time.Second, func(ctx context.Context) {
			s.host.Manager.HandedOver(next.PID())
			s.controlPort.leave()
			if s.health != nil {
				_ = s.health.Shutdown(ctx)
			}
		}},
		{"tell clients", time.Second, s.sessions.GoAway},
		// Until they have come over, their visitors are served here.
		{"await clients", comeOver, s.sessions.AwaitMoved},
		{"leave the visitors", time.Second, func(context.Context) {
			s.plane.LeavePackets()
			if err := next.Leave(); err != nil {
				fail(fmt.Errorf("hand over to process %d: %w", next.PID(), err))
			}
		}},
	}
}

// lookGrace is the first step of a server's end: balancers that ask whether it is ready get the time to notice that it is
// not, while it still takes their visitors.
func (s *Server) lookGrace(ctx context.Context) {
	if s.cfg.ReadyGrace <= 0 || !s.probes.Regular() {
		return
	}
	s.log.Info("visitors are still taken until balancers have noticed", "for", s.cfg.ReadyGrace)
	s.host.Manager.Status("not ready any more, still taking visitors")
	<-ctx.Done()
}

// openPause is the time between two lines on what is still open.
const openPause = 5 * time.Second

// tellOpen says again and again how much is still open, until the context ends.
func (s *Server) tellOpen(ctx context.Context) {
	tick := time.NewTicker(openPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		open := s.plane.Open()
		if s.web != nil {
			open += s.web.Open()
		}
		s.log.Info("waiting for connections to end", "open", open)
		s.host.Manager.Status(fmt.Sprintf("going down, %d connections are open", open))
	}
}
