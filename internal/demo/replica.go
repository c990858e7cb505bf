package demo

import (
	"bufio"
	"context"
	"fmt"
	"html"
	"net"
	"net/http"
	"sync"
	"time"
)

// replica is one copy of the site: a page over HTTP and a service of lines over TCP, each of which says whose it is.
type replica struct {
	name       string
	web, lines net.Listener
}

const servedBy = "X-Served-By"

func newReplica(name string, opened *closers) (r *replica, err error) {
	r = &replica{name: name}
	for _, l := range []*net.Listener{&r.web, &r.lines} {
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		*opened = append(*opened, *l)
	}
	return r, nil
}

// serve serves until the context ends and every connection is closed.
func (r *replica) serve(ctx context.Context) {
	server := &http.Server{Handler: http.HandlerFunc(r.page), ReadHeaderTimeout: 5 * time.Second}
	var open sync.WaitGroup
	open.Go(func() { _ = server.Serve(r.web) }) // ends by Close
	open.Go(func() {
		for {
			c, err := r.lines.Accept()
			if err != nil {
				return
			}
			open.Go(func() { r.converse(ctx, c) })
		}
	})
	<-ctx.Done()
	_ = server.Close()
	_ = r.lines.Close()
	open.Wait()
}

func (r *replica) page(w http.ResponseWriter, req *http.Request) {
	w.Header().Set(servedBy, r.name)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html>
<title>Culvert demo</title>
<h1>Hello from copy %s of the site</h1>
<p>You came from %s, asked for %s, and the answer came through the tunnel of client %[1]s.</p>
<p>Load the page again: the server hands its requests to both clients in turn.</p>
`, r.name, html.EscapeString(req.Header.Get("X-Forwarded-For")), html.EscapeString(req.URL.Path))
}

// converse answers each line with the copy's name and the line.
func (r *replica) converse(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if _, err := fmt.Fprintf(c, "%s %s\n", r.name, lines.Text()); err != nil {
			return
		}
	}
}
