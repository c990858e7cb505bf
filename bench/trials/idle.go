package trials

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
	"culvert/bench/proc"
)

// IdleConnections is how many Idle opens.
const IdleConnections = 5000

// Settle is how long memory is left alone before it is read.
const Settle = 5 * time.Second

// Idle measures what open connections cost that say nothing; memory names their resident memory, of both ends if there
// are two.
func Idle(ctx context.Context, t *Trial, memory string) error {
	if err := Pause(ctx, time.Second); err != nil {
		return err
	}
	server, client := t.ServerMemory(), t.ClientMemory()
	files := proc.Descriptors(t.ServerTree())
	open, err := load.OpenIdle(t.Visitors(), IdleConnections)
	if err != nil {
		return err
	}
	defer open.Close()
	if err := Pause(ctx, Settle); err != nil {
		return err
	}
	server, client = t.ServerMemory()-server, t.ClientMemory()-client
	files = proc.Descriptors(t.ServerTree()) - files
	if n := open.Alive(); n != IdleConnections {
		return fmt.Errorf("only %d of %d idle connections are alive", n, IdleConnections)
	}
	t.Note(memory, float64(server+client)/1024/IdleConnections)
	if t.System.Tunnel() {
		t.Note("KiB of it, server", float64(server)/1024/IdleConnections)
		t.Note("KiB of it, client", float64(client)/1024/IdleConnections)
		return nil
	}
	t.Note(IdleDescriptors, float64(files)/IdleConnections)
	return nil
}

// IdleDescriptors is what Idle measures besides memory of systems of one hop.
const IdleDescriptors = "descriptors an idle connection"
