package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"
)

const (
	maxWaiting  = 8192        // lines that wait for the file
	bufferSize  = 64 << 10    // bytes that are written at once
	lookPause   = time.Second // between looks whether the file is still at its path
	lastWords   = time.Second // for what waits when the process ends
	complainGap = time.Minute // between complaints about the file
)

// writer writes lines in a goroutine of its own. Whoever has a line never waits for it.
type writer struct {
	cfg     Config
	encode  func([]byte, *Record) []byte
	waiting chan *Entry
	metrics metrics
	reopen  chan struct{} // has room for one

	// The rest is the goroutine's alone.
	out        io.Writer
	file       *os.File // out, if it is a file with a path
	buffer     []byte
	lines      int  // in the buffer
	torn       bool // the last line that is in the file is not whole
	looked     time.Time
	complained time.Time
}

func newWriter(cfg Config) *writer {
	w := &writer{
		cfg: cfg, encode: appendText, waiting: make(chan *Entry, maxWaiting), metrics: newMetrics(cfg.Metrics), reopen: make(chan struct{}, 1),
		out: cfg.Out, buffer: make([]byte, 0, bufferSize),
	}
	if cfg.Format == JSON {
		w.encode = appendJSON
	}
	if w.cfg.Log == nil {
		w.cfg.Log = slog.New(slog.DiscardHandler)
	}
	return w
}

func (w *writer) close() {
	if w.file != nil {
		_ = w.file.Close() // every write has been checked
	}
}

// take has a line written, unless too many wait already.
func (w *writer) take(e *Entry) {
	select {
	case w.waiting <- e:
	default:
		w.metrics.behind.Inc()
	}
}

// run writes until the context ends. It does not wait for a file that hangs then.
func (w *writer) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.write(ctx)
	}()
	<-ctx.Done()
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		w.cfg.Log.Error("access log hangs, going on without it", "path", w.cfg.Path)
	}
}

func (w *writer) write(ctx context.Context) {
	for {
		select {
		case e := <-w.waiting:
			w.add(e)
			w.addWaiting()
			w.flush()
		case <-w.reopen:
			w.openAnew()
		case <-ctx.Done():
			w.addWaiting()
			w.flush()
			w.close()
			return
		}
	}
}

// addWaiting adds the lines that are there now.
func (w *writer) addWaiting() {
	for {
		select {
		case e := <-w.waiting:
			w.add(e)
		default:
			return
		}
	}
}

func (w *writer) add(e *Entry) {
	w.buffer = w.encode(w.buffer, &e.record)
	w.lines++
	if len(w.buffer) >= bufferSize*3/4 {
		w.flush()
	}
}

// flush writes the buffer. What the file does not take is lost: the next lines may have more luck.
func (w *writer) flush() {
	if w.lines == 0 {
		return
	}
	w.follow(time.Now())
	if w.torn {
		w.buffer = append([]byte{'\n'}, w.buffer...)
	}
	n, err := w.out.Write(w.buffer)
	if err == nil {
		w.torn = false
		w.metrics.written.Add(float64(w.lines))
	} else {
		if n > 0 {
			w.torn = w.buffer[n-1] != '\n'
		}
		w.metrics.failed.Add(float64(w.lines))
		w.complain("lines are lost", err)
	}
	w.buffer, w.lines = w.buffer[:0], 0
}

// follow opens the file anew if it is not at its path any more.
func (w *writer) follow(now time.Time) {
	if w.file == nil || now.Sub(w.looked) < lookPause {
		return
	}
	w.looked = now
	if !w.inPlace() {
		w.openAnew()
	}
}

// openAnew opens the file by its path, and closes the one before.
func (w *writer) openAnew() {
	old := w.file
	if old == nil {
		return
	}
	if err := w.open(); err != nil { // better the old one than none
		w.complain("it cannot be opened anew, and the old file is written to", err)
		return
	}
	_ = old.Close()
}

func (w *writer) inPlace() bool {
	there, err := os.Stat(w.cfg.Path)
	if err != nil {
		return false
	}
	ours, err := w.file.Stat()
	return err == nil && os.SameFile(there, ours)
}

// open opens the file at the path; on failure the one before stays. It does not wait for somebody to read a named pipe.
func (w *writer) open() error {
	f, err := os.OpenFile(w.cfg.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	if errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("nobody reads the pipe: start its reader first: %w", err)
	}
	if err != nil {
		return err
	}
	w.file, w.out, w.torn = f, f, false
	return nil
}

// complain tells the operator of the file, and not of each failure.
func (w *writer) complain(effect string, err error) {
	if now := time.Now(); now.Sub(w.complained) >= complainGap {
		w.complained = now
		w.cfg.Log.Error("access log fails", "path", w.cfg.Path, "effect", effect, "err", err)
	}
}
