package accesslog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Log needs. The zero Config keeps and writes nothing.
type Config struct {
	Records int    // how many of the newest records are kept to be found
	Path    string // file to write to, "-" for Out; "" to write nowhere
	Format  Format
	Out     io.Writer             // of Path "-"
	Metrics prometheus.Registerer // may be nil
	Log     *slog.Logger          // for what is wrong with the file; required with a Path
}

// Format is the form of the written log.
type Format string

// The formats. "" is Text.
const (
	Text Format = "text"
	JSON Format = "json"
)

// Log is the records of one process. A nil *Log does nothing. It is safe for concurrent use.
type Log struct {
	ring   *ring   // nil: nothing is kept
	writer *writer // nil: nothing is written
}

// New makes a Log and opens nothing.
func New(cfg Config) *Log {
	l := &Log{}
	if cfg.Records > 0 {
		l.ring = &ring{slots: make([]atomic.Pointer[Entry], cfg.Records)}
	}
	if cfg.Path != "" {
		l.writer = newWriter(cfg)
	}
	return l
}

// Open opens the file, so that a path that is wrong is told before visitors come. Run closes it, or Close if there is no Run.
func (l *Log) Open() error {
	if l == nil || l.writer == nil || l.writer.cfg.Path == "-" {
		return nil
	}
	if err := l.writer.open(); err != nil {
		return fmt.Errorf("access log: %w", err)
	}
	return nil
}

// Close closes the file of a Log that is not Run.
func (l *Log) Close() {
	if l != nil && l.writer != nil {
		l.writer.close()
	}
}

// Run writes until the context ends, and then what is still to be written, for at most a second. Without a Run nothing is
// written.
func (l *Log) Run(ctx context.Context) error {
	if l == nil || l.writer == nil {
		return nil
	}
	l.writer.run(ctx)
	return nil
}

// Reopen has the file opened anew by its path, for log rotation, as soon as what is being written is written. A file that was
// renamed or removed is noticed without it, too, with the next line.
func (l *Log) Reopen() {
	if l == nil || l.writer == nil {
		return
	}
	select {
	case l.writer.reopen <- struct{}{}:
	default: // it is to be already
	}
}

// Entry is a connection's place in a Log. A nil *Entry does nothing.
type Entry struct {
	record Record // never changed
	log    *Log
	slot   *atomic.Pointer[Entry]
}

// Opened puts down a connection that has been given to a member, or has failed to be: Closed follows in any case, exactly once.
func (l *Log) Opened(r Record) *Entry {
	if l == nil || l.ring == nil && l.writer == nil {
		return nil
	}
	r.bound()
	e := &Entry{record: r, log: l}
	if l.ring != nil {
		l.ring.put(e)
	}
	return e
}

// Closed puts down how the connection ended. change gets a copy of the record, which it fills in; the duration is what has
// passed since Begun unless it says otherwise.
func (e *Entry) Closed(change func(*Record)) {
	if e == nil {
		return
	}
	closed := &Entry{record: e.record, log: e.log}
	change(&closed.record)
	if closed.record.ClosedBy == "" {
		closed.record.ClosedBy = Server
	}
	if closed.record.Duration == 0 {
		closed.record.Duration = max(1, time.Since(closed.record.Begun))
	}
	closed.record.bound()
	if l := e.log; l.ring != nil {
		l.ring.replace(e, closed)
	}
	if e.log.writer != nil {
		e.log.writer.take(closed)
	}
}

// Find gives the records that are kept and fit, newest first.
func (l *Log) Find(q Query) []Record {
	if l == nil || l.ring == nil {
		return nil
	}
	return l.ring.find(q)
}
