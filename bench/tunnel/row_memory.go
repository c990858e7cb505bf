package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"culvert/bench/systems"
	"culvert/bench/trials"
)

const (
	idleMemory   = "KiB an idle connection, both ends"
	idleClients  = 200
	clientMemory = "KiB an idle client, server"
)

// idle measures what open connections cost that say nothing.
func idle(ctx context.Context, t *trials.Trial) error { return trials.Idle(ctx, t, idleMemory) }

// sessions measures what clients cost a server that say nothing, each with a port of its own.
func sessions(ctx context.Context, t *trials.Trial) error {
	if err := trials.Pause(ctx, time.Second); err != nil {
		return err
	}
	before := t.ServerMemory()
	for range idleClients {
		port, err := systems.FreePort()
		if err != nil {
			return err
		}
		if _, err := t.AddClient(port); err != nil {
			return err
		}
		if err := opened(ctx, net.JoinHostPort(t.Host, port)); err != nil {
			return err
		}
	}
	if err := trials.Pause(ctx, trials.Settle); err != nil {
		return err
	}
	t.Note(clientMemory, float64(t.ServerMemory()-before)/1024/idleClients)
	return nil
}

// opened waits until somebody listens.
func opened(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		if trials.Pause(ctx, 5*time.Millisecond) != nil {
			return fmt.Errorf("no port for a client: %w", err)
		}
	}
}
