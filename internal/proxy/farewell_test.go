package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"culvert/internal/upstream"
)

// TestIdleConnectionIsEndedAndABusyOneAborted looks from the service: an idle connection that the pool gives up is an end of
// data, a request whose visitor left is a reset.
func TestIdleConnectionIsEndedAndABusyOneAborted(t *testing.T) {
	seen := make(chan error, 1)
	m := static(service(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			seen <- err
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
		if req.URL.Path == "/idle" {
			_, _ = io.WriteString(c, "ok")
		}
		_, err = upstream.FromTCP(c).Read(make([]byte, 1))
		seen <- err
	}), upstream.HTTP1)
	s := newSite(t, nil, m)
	if res, body := s.do(t, http.MethodGet, "/idle", nil, nil); res.StatusCode != 200 || body != "ok" {
		t.Fatalf("got %d %q", res.StatusCode, body)
	}
	s.Forget(m)
	if err := <-seen; !errors.Is(err, io.EOF) {
		t.Errorf("idle: the service saw %v, want an end", err)
	}
	res, err := s.visitor.Get(s.url + "/busy")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close() // before its end: the visitor leaves
	s.visitor.CloseIdleConnections()
	if err := <-seen; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("busy: the service saw %v, want a reset", err)
	}
}
