package mux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

// The opener sends   length(2) metadata
// the acceptor sends received(1)  then  result(1) code(1) length(2) detail
// and after a result of zero both directions carry the users' bytes. The opener's may begin after received.
const (
	frameReceived = 1
	frameResult   = 2

	maxDetail = 1024
)

// Refusal is a result other than success. It certifies that none of the opener's bytes went anywhere.
type Refusal struct {
	Code   uint8 // the users' own, not 0
	Detail string
}

func (r *Refusal) Error() string { return r.Detail }

// ErrLost is in the chain of errors of streams whose session or peer went away before the result.
var ErrLost = errors.New("stream lost")

// Stream is one stream of a session. It is a net.Conn whose directions close apart.
type Stream struct {
	*yamux.Stream // addresses and deadlines
	session       *Session
	meta          []byte

	// The opener's wait for the peer; nil at the acceptor.
	received chan struct{}
	result   chan struct{}
	refused  error // valid once result is closed

	sawEOF      atomic.Bool
	closedWrite atomic.Bool
	over        sync.Once
}

func newStream(s *Session, ys *yamux.Stream) *Stream {
	s.streams.Add(1)
	return &Stream{Stream: ys, session: s}
}

// left takes the stream out of the session's count, once.
func (st *Stream) left() { st.over.Do(func() { st.session.streams.Add(-1) }) }

// request sends an open and starts to wait for its answers.
func request(ctx context.Context, s *Session, ys *yamux.Stream, meta []byte) (*Stream, error) {
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(meta)), uint16(len(meta)))
	stop := context.AfterFunc(ctx, func() { _ = ys.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := ys.Write(append(frame, meta...))
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	st := newStream(s, ys)
	st.received, st.result = make(chan struct{}), make(chan struct{})
	if err := s.spawn(st.awaitAnswers); err != nil {
		st.left()
		return nil, err
	}
	return st, nil
}

// awaitAnswers waits for the peer's decision.
func (st *Stream) awaitAnswers() {
	st.refused = st.answers()
	close(st.result)
}

// answers returns the peer's decision. An answer out of order is taken for a loss.
func (st *Stream) answers() error {
	if err := readReceived(st.Stream); err != nil {
		return st.lost(err)
	}
	close(st.received)
	refusal, err := readResult(st.Stream)
	switch {
	case err != nil:
		return st.lost(err)
	case refusal != nil:
		return refusal
	default:
		return nil
	}
}

func (st *Stream) lost(err error) error {
	return fmt.Errorf("%w: %w", ErrLost, st.session.cause(noEOF(err)))
}

var errProtocol = errors.New("peer broke the protocol")

func readReceived(r io.Reader) error {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return err
	}
	if kind[0] != frameReceived {
		return fmt.Errorf("%w: answer %d before received", errProtocol, kind[0])
	}
	return nil
}

// readResult returns nil, nil for success.
func readResult(r io.Reader) (*Refusal, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	code, length := head[1], binary.BigEndian.Uint16(head[2:])
	if head[0] != frameResult || length > maxDetail {
		return nil, fmt.Errorf("%w: answer %d of %d bytes in place of a result", errProtocol, head[0], length)
	}
	detail := make([]byte, length)
	if _, err := io.ReadFull(r, detail); err != nil {
		return nil, err
	}
	if code == 0 {
		return nil, nil
	}
	return &Refusal{Code: code, Detail: string(detail)}, nil
}

// receive reads a peer's open and acknowledges it.
func receive(s *Session, ys *yamux.Stream) (*Stream, error) {
	_ = ys.SetDeadline(time.Now().Add(openTimeout))
	meta, err := readMeta(ys, s.cfg.MaxMeta)
	if err != nil {
		return nil, err
	}
	if _, err := ys.Write([]byte{frameReceived}); err != nil {
		return nil, err
	}
	_ = ys.SetDeadline(time.Time{})
	st := newStream(s, ys)
	st.meta = meta
	return st, nil
}

func readMeta(r io.Reader, most int) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > most {
		return nil, fmt.Errorf("%d bytes of metadata, at most %d", n, most)
	}
	meta := make([]byte, n)
	_, err := io.ReadFull(r, meta)
	return meta, err
}

// Meta is what the opener sent along. The acceptor must not change it.
func (st *Stream) Meta() []byte { return st.meta }

// Received is closed when the peer's mux has the open. From then on the opener may write.
func (st *Stream) Received() <-chan struct{} { return st.received }

// Decided is closed when the result is there, or the stream was lost before it.
func (st *Stream) Decided() <-chan struct{} { return st.result }

// Result waits for the peer's decision: nil when it accepted, a *Refusal, an error with ErrLost in its chain, or the
// context's error. Only a *Refusal certifies that no written byte went anywhere.
func (st *Stream) Result(ctx context.Context) error {
	select {
	case <-st.result:
		return st.refused
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Confirm tells the opener that its stream is accepted. The acceptor calls it before it writes.
func (st *Stream) Confirm() error {
	_, err := st.Stream.Write([]byte{frameResult, 0, 0, 0})
	return err
}

// Refuse tells the opener that nothing of what it sent was used, and ends the stream.
// The code must not be zero; detail is cut at 1,024 bytes.
func (st *Stream) Refuse(code uint8, detail string) error {
	if code == 0 {
		return errors.New("refuse stream: code 0 means accepted")
	}
	defer st.left()
	detail = detail[:min(len(detail), maxDetail)]
	frame := binary.BigEndian.AppendUint16([]byte{frameResult, code}, uint16(len(detail)))
	_ = st.Stream.SetWriteDeadline(time.Now().Add(openTimeout))
	_, err := st.Stream.Write(append(frame, detail...))
	// Not a reset: that could overtake the refusal.
	return errors.Join(err, st.Stream.Close())
}

// Read reads the peer's bytes. At the opener it waits for the result first.
func (st *Stream) Read(p []byte) (int, error) {
	if st.result != nil {
		<-st.result // ends with the session at the latest
		if st.refused != nil {
			return 0, st.refused
		}
	}
	n, err := st.Stream.Read(p)
	switch {
	case n > 0:
		// An error beside bytes is of the window update that they caused, and may be the connection's io.EOF. The bytes
		// are good, and so are those behind them if the peer had ended before its session did; the next read tells.
		return n, nil
	case err == io.EOF:
		st.sawEOF.Store(true)
		return 0, err
	default:
		return 0, noEOF(err)
	}
}

// CloseWrite ends what this side sends; the peer reads EOF.
func (st *Stream) CloseWrite() error {
	st.closedWrite.Store(true)
	return st.Stream.CloseWrite()
}

// Close ends the stream. After CloseWrite and a read of EOF that is its orderly end; before, it resets the stream, so
// that the peer never takes a cut for an end.
func (st *Stream) Close() error {
	if st.sawEOF.Load() && st.closedWrite.Load() {
		st.left()
		return st.Stream.Close()
	}
	return st.Reset()
}

// End ends what this side sends and drops what the peer still sends: it reads EOF after all that was written.
func (st *Stream) End() error {
	st.left()
	return st.Stream.Close()
}

// Reset aborts both directions. The peer's reads and writes fail.
func (st *Stream) Reset() error {
	st.left()
	return st.Stream.Reset()
}
