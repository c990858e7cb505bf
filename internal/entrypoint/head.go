package entrypoint

import (
	"context"
	"net"
	"net/http"
)

// RefusedHead is the reason of a connection that ended while a request's head was not whole: it was too long, too slow
// or no HTTP, or its sender gave up.
const RefusedHead = "head"

// WatchHeads has ended called for each connection that ends with RefusedHead, for which http.Server has neither a log
// line nor a hook. The server's connections are those of this package; WatchHeads is called once, before it serves.
func WatchHeads(s *http.Server, ended func(source net.Addr)) {
	connContext, handler := s.ConnContext, s.Handler
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		return context.WithValue(ctx, headKey{}, headOf(c))
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		switch h := headOf(c); {
		case h == nil:
		case state == http.StateActive: // once the head has been read, in whole or in part
			h.begun = true
		case state == http.StateClosed && h.begun:
			ended(c.RemoteAddr())
		}
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, _ := r.Context().Value(headKey{}).(*head); h != nil {
			h.begun = false
		}
		handler.ServeHTTP(w, r)
	})
}

type headKey struct{}

// head is what is known of the present request's head of a connection. Only the goroutine that serves the connection
// uses it.
type head struct{ begun bool }

func (h *head) state() *head { return h }

// headOf finds the head of a connection of this package, also within one that has a NetConn method, as *tls.Conn does.
func headOf(c net.Conn) *head {
	for c != nil {
		if h, ok := c.(interface{ state() *head }); ok {
			return h.state()
		}
		under, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = under.NetConn()
	}
	return nil
}
