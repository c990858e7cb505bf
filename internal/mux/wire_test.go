package mux_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"culvert/internal/mux"
)

// This file speaks the protocol by docs/protocol.md alone, with nothing of the package under test: it is the second
// implementation that the document is for.

const (
	tAttach   = 0x01
	tAttached = 0x02
	tPing     = 0x03
	tPong     = 0x04
	tClose    = 0x05
	tResume   = 0x06
	tOpen     = 0x10
	tReceived = 0x11
	tResult   = 0x12
	tData     = 0x13
	tWindow   = 0x14
	tFin      = 0x15
	tReset    = 0x16
	tMore     = 0x81
)

var typeNames = map[byte]string{
	tAttach: "ATTACH", tAttached: "ATTACHED", tPing: "PING", tPong: "PONG", tClose: "CLOSE", tResume: "RESUME",
	tOpen: "OPEN", tReceived: "RECEIVED", tResult: "RESULT", tData: "DATA", tWindow: "WINDOW", tFin: "FIN",
	tReset: "RESET", tMore: "MORE",
}

// frame is one frame as it is on the wire.
type frame struct {
	typ    byte
	stream uint64
	body   []byte
}

func (f frame) String() string {
	body := f.body
	if len(body) > 40 {
		body = body[:40]
	}
	return fmt.Sprintf("%s stream %d, %d bytes %x", typeNames[f.typ], f.stream, len(f.body), body)
}

func (f frame) bytes() []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(f.typ)<<24|uint32(len(f.body)))
	head = binary.BigEndian.AppendUint64(head, f.stream)
	return append(head, f.body...)
}

func readFrame(r io.Reader) (frame, error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	first := binary.BigEndian.Uint32(head[:])
	f := frame{typ: byte(first >> 24), stream: binary.BigEndian.Uint64(head[4:]), body: make([]byte, first&0xffffff)}
	_, err := io.ReadFull(r, f.body)
	return f, err
}

func u8(n int) []byte                        { return []byte{byte(n)} }
func u32(n uint32) []byte                    { return binary.BigEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte                    { return binary.BigEndian.AppendUint64(nil, n) }
func join(p ...[]byte) []byte                { return slices.Concat(p...) }
func number(p []byte) uint64                 { return binary.BigEndian.Uint64(p) }
func ping(n uint64) frame                    { return frame{tPing, 0, u64(n)} }
func pong(f frame) frame                     { return frame{tPong, 0, f.body} }
func data(id, offset uint64, p []byte) frame { return frame{tData, id, join(u64(offset), p)} }
func asks(id, limit uint64, meta string) frame {
	return frame{tOpen, id, join(u64(limit), []byte(meta))}
}
func received(id, limit uint64) frame { return frame{tReceived, id, u64(limit)} }
func result(id uint64, code int, detail string) frame {
	return frame{tResult, id, join(u8(code), []byte(detail))}
}

func window(id, acked, limit uint64) frame { return frame{tWindow, id, join(u64(acked), u64(limit))} }
func fin(id, offset uint64) frame          { return frame{tFin, id, u64(offset)} }
func reset(id uint64, code int, text string) frame {
	return frame{tReset, id, join(u8(code), []byte(text))}
}

// attachment is the body of an ATTACH.
type attachment struct {
	version, kind int
	link          uint32
	session       [16]byte
	secret        [32]byte
	maxStreams    uint32
}

func (a attachment) frame() frame {
	return frame{tAttach, 0, join(u8(a.version), u8(a.kind), u32(a.link), a.session[:], a.secret[:], u32(a.maxStreams))}
}

// newSession is what a dialler of a first link says.
func newSession() attachment {
	return attachment{version: 1, link: 1, session: [16]byte{1, 2, 3}, secret: [32]byte{4, 5, 6}, maxStreams: 100}
}

func attached(status int, maxStreams uint32, text string) frame {
	return frame{tAttached, 0, join(u8(status), u32(maxStreams), []byte(text))}
}

// entry is one stream in a RESUME.
type entry struct{ id, flags, received, limit uint64 }

// resume is a RESUME set of one fragment.
func resume(lost []uint32, entries ...entry) frame { return resumePart(true, lost, entries...) }

func resumePart(last bool, lost []uint32, entries ...entry) frame {
	body := []byte{0}
	if last {
		body[0] = 1
	}
	body = binary.BigEndian.AppendUint16(body, uint16(len(lost)))
	for _, l := range lost {
		body = append(body, u32(l)...)
	}
	for _, e := range entries {
		for _, n := range []uint64{e.id, e.flags, e.received, e.limit} {
			body = binary.AppendUvarint(body, n)
		}
	}
	return frame{tResume, 0, body}
}

// resumed is a decoded RESUME set.
type resumed struct {
	lost    []uint32
	entries map[uint64]entry
}

func (r *resumed) add(body []byte) (last bool, err error) {
	if len(body) < 3 {
		return false, errors.New("short RESUME")
	}
	n := int(binary.BigEndian.Uint16(body[1:]))
	last, body = body[0]&1 != 0, body[3:]
	for range n {
		if len(body) < 4 {
			return false, errors.New("RESUME ends within the lost links")
		}
		r.lost, body = append(r.lost, binary.BigEndian.Uint32(body)), body[4:]
	}
	for len(body) > 0 {
		var f [4]uint64
		for i := range f {
			v, n := binary.Uvarint(body)
			if n <= 0 {
				return false, errors.New("bad number in RESUME")
			}
			f[i], body = v, body[n:]
		}
		r.entries[f[0]] = entry{f[0], f[1], f[2], f[3]}
	}
	return last, nil
}

// peer is one end of a link, spoken by hand.
type peer struct {
	t    testing.TB
	conn net.Conn
}

func (p peer) send(frames ...frame) {
	p.t.Helper()
	if err := p.trySend(frames...); err != nil {
		p.t.Fatalf("send %s: %v", frames[0], err)
	}
}

func (p peer) trySend(frames ...frame) error {
	var all []byte
	for _, f := range frames {
		all = append(all, f.bytes()...)
	}
	_, err := p.conn.Write(all)
	return err
}

// next reads the next frame and answers pings on the way, which it does not return.
func (p peer) next() (frame, error) {
	for {
		f, err := readFrame(p.conn)
		if err != nil || f.typ != tPing {
			return f, err
		}
		if err := p.trySend(pong(f)); err != nil {
			return f, err
		}
	}
}

// expect reads until a frame of the type, for the stream, and returns it. Pings and WINDOWs are passed over.
func (p peer) expect(typ byte, stream uint64) frame {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			p.t.Fatalf("%v in place of %s for stream %d", err, typeNames[typ], stream)
		}
		if f.typ == typ && f.stream == stream {
			return f
		}
		if f.typ != tWindow && f.typ != tMore {
			p.t.Fatalf("got %s, want %s for stream %d", f, typeNames[typ], stream)
		}
	}
}

// closing reads until the session's CLOSE and returns its code and text; ok is false when the link ends without one.
func (p peer) closing() (code byte, text string, ok bool) {
	for {
		f, err := readFrame(p.conn)
		if err != nil {
			return 0, "", false
		}
		if f.typ == tClose && len(f.body) > 0 {
			return f.body[0], string(f.body[1:]), true
		}
	}
}

// quiet fails when anything but pings comes within the time, which is of a synctest bubble.
func (p peer) quiet(d time.Duration) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(d))
	f, err := p.next()
	if err == nil {
		p.t.Fatalf("got %s, want nothing for %s", f, d)
	}
	_ = p.conn.SetReadDeadline(time.Time{})
}

// dialTo gives a peer that dialled a real session.
func dialTo(t testing.TB, cfg mux.Config, a attachment) (peer, *mux.Session) {
	t.Helper()
	near, far := newCable(cableConfig{})
	p := peer{t, near}
	p.send(a.frame())
	s, err := mux.Server(far, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(nil); near.Close() })
	if f := p.expect(tAttached, 0); f.body[0] != 0 {
		t.Fatalf("attached: %s", f)
	}
	return p, s
}

// dialledBy gives a peer that a real session dialled, and what that said.
func dialledBy(t testing.TB, cfg mux.Config) (peer, *mux.Session, attachment) {
	t.Helper()
	near, far := newCable(cableConfig{})
	p := peer{t, far}
	type made struct {
		s   *mux.Session
		err error
	}
	dialled := make(chan made, 1)
	go func() {
		s, err := mux.Client(near, cfg)
		dialled <- made{s, err}
	}()
	a := p.greeted()
	p.send(attached(0, 100, ""))
	m := <-dialled
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { m.s.Close(nil); far.Close() })
	return p, m.s, a
}

// greeted reads an ATTACH.
func (p peer) greeted() attachment {
	p.t.Helper()
	f := p.expect(tAttach, 0)
	if len(f.body) != 58 {
		p.t.Fatalf("ATTACH of %d bytes, want 58", len(f.body))
	}
	a := attachment{version: int(f.body[0]), kind: int(f.body[1]), link: binary.BigEndian.Uint32(f.body[2:])}
	copy(a.session[:], f.body[6:])
	copy(a.secret[:], f.body[22:])
	a.maxStreams = binary.BigEndian.Uint32(f.body[54:])
	return a
}
