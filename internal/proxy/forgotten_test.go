package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"culvert/internal/upstream"
)

// A request that comes while its member goes must not leave a connection in the pool: the member's client waits for its end.
func TestAConnectionOfAForgottenMemberIsNotKept(t *testing.T) {
	ended := make(chan struct{})
	addr := service(t, func(c *net.TCPConn) {
		defer close(ended)
		_, _ = c.Read(make([]byte, 1000))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = io.Copy(io.Discard, c)
	})
	m := static(addr, upstream.HTTP1)
	p := &pools{dial: func(ctx context.Context, m upstream.Member, v *upstream.Visit) (upstream.Conn, error) {
		d, err := m.Dial(ctx, v)
		return d.Conn, err
	}}
	late := p.of(m)
	p.forget(m)
	a := &attempt{visit: &upstream.Visit{}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://app/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := late.RoundTrip(a.request(req, &flow{}))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	<-ended
}
