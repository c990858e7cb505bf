package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/internal/mux"
	"culvert/internal/proxy"
	"culvert/internal/tunnel"
	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// flowIdle is how long a flow's socket is kept while no datagram goes either way. The server, which has the setting, ends a
// flow long before; this is for one that does not.
const flowIdle = time.Hour

// serveDatagrams gives a flow a socket of its own and carries datagrams between the two. A service that refuses one has the
// stream reset, so that the server moves the flow to another client.
func (s service) serveDatagrams(ctx context.Context, st *mux.Stream, o *tunnel.Open) error {
	if !s.datagrams {
		return st.Refuse(uint8(tunnel.Unreachable), o.Tunnel.String()+" takes no datagrams: its target is not HOST:PORT")
	}
	d, err := s.upstream.Dial(ctx, &upstream.Visit{
		ID: o.ID, Source: o.Source, Destination: o.Destination, Host: o.Host, Emit: s.emission(o), Datagrams: true,
	})
	if err != nil {
		return errors.Join(err, st.Refuse(uint8(refusal(err)), err.Error()))
	}
	defer d.Place.Release()
	if err := st.Confirm(); err != nil {
		_ = d.Conn.Close()
		_ = st.Reset()
		return fmt.Errorf("confirm: %w", err)
	}
	return proxy.Exchange(ctx, udp.NewFramed(st), d.Conn, flowIdle)
}
