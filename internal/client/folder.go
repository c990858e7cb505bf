package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"culvert/internal/mux"
	"culvert/internal/tunnel"
	"culvert/internal/upstream/fileserver"
)

// folder is the built-in file server: it speaks HTTP on the streams themselves.
type folder struct{ server *http.Server }

func newFolder(root string, log *slog.Logger) (local, error) {
	handler, err := fileserver.Handler(fileserver.Config{Root: root, Log: log})
	if err != nil {
		return nil, err
	}
	return folder{&http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}, nil
}

func (f folder) serve(ctx context.Context, st *mux.Stream, _ *tunnel.Open, over func(error)) {
	go func() { over(f.answer(ctx, st)) }()
}

func (f folder) answer(ctx context.Context, st *mux.Stream) error {
	if err := st.Confirm(); err != nil {
		_ = st.Reset()
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = st.Reset() })()
	err := f.server.Serve(&oneConn{conn: fileConn{Stream: st, closed: make(chan struct{}), once: new(sync.Once)}})
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// oneConn is a listener that accepts one connection and ends with it.
type oneConn struct {
	conn  fileConn
	taken bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.taken {
		l.taken = true
		return l.conn, nil
	}
	<-l.conn.closed
	return nil, io.EOF
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// fileConn ends a stream as http.Server ends a connection: what was written still arrives.
type fileConn struct {
	*mux.Stream
	once   *sync.Once
	closed chan struct{}
}

func (c fileConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.End()
}
