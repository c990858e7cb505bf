package proxy

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
)

// recorder is a ResponseWriter that notes the status and counts the bytes.
type recorder struct {
	http.ResponseWriter
	metrics  *Metrics
	code     int
	hijacked bool
	length   int64 // of the body, where the head says so, else 0
	written  int64
}

// Unwrap lets http.ResponseController reach the server's own writer.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 && code >= 200 { // the others only announce
		r.code = code
		r.length, _ = strconv.ParseInt(r.Header().Get("Content-Length"), 10, 64)
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.metrics.httpBytes(Out, n)
	r.written += int64(n)
	return n, err
}

// FlushError sends what is there to the visitor. The end of a body of known length needs no flush of its own: the server
// sends it with the end of the request, which is next.
func (r *recorder) FlushError() error {
	if r.length > 0 && r.written >= r.length {
		return nil
	}
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Hijack hands the connection to an upgraded protocol; its bytes are counted too.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	r.hijacked = true
	return &countedConn{Conn: c, metrics: r.metrics}, rw, nil
}

func (r *recorder) status() int {
	switch {
	case r.hijacked:
		return http.StatusSwitchingProtocols
	case r.code == 0:
		return http.StatusOK
	default:
		return r.code
	}
}

type countedConn struct {
	net.Conn
	metrics *Metrics
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.metrics.httpBytes(In, n)
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.metrics.httpBytes(Out, n)
	return n, err
}

// CloseWrite passes the end of one direction on where the connection can.
func (c *countedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return c.Close()
}
