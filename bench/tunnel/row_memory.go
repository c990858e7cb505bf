package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"culvert/bench/load"
	"culvert/bench/systems"
)

const (
	idleConns    = 5000
	idleMemory   = "KiB an idle connection, both ends"
	idleClients  = 200
	clientMemory = "KiB an idle client, server"

	// settle is how long memory is left alone before it is read.
	settle = 5 * time.Second
)

// idle measures what open connections cost that say nothing.
func idle(ctx context.Context, t *trial) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	server, client := t.serverMemory(), t.clientMemory()
	open, err := load.OpenIdle(t.visitors(), idleConns)
	if err != nil {
		return err
	}
	defer open.Close()
	if err := pause(ctx, settle); err != nil {
		return err
	}
	server, client = t.serverMemory()-server, t.clientMemory()-client
	if n := open.Alive(); n != idleConns {
		return fmt.Errorf("only %d of %d idle connections are alive", n, idleConns)
	}
	t.note(idleMemory, float64(server+client)/1024/idleConns)
	t.note("KiB of it, server", float64(server)/1024/idleConns)
	t.note("KiB of it, client", float64(client)/1024/idleConns)
	return nil
}

// sessions measures what clients cost a server that say nothing, each with a port of its own.
func sessions(ctx context.Context, t *trial) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	before := t.serverMemory()
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
	if err := pause(ctx, settle); err != nil {
		return err
	}
	t.note(clientMemory, float64(t.serverMemory()-before)/1024/idleClients)
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
		if pause(ctx, 5*time.Millisecond) != nil {
			return fmt.Errorf("no port for a client: %w", err)
		}
	}
}
