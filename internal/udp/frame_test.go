package udp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stream is a byte stream whose reader gets what is in, and whose writes fill a limited room.
type stream struct {
	in   io.Reader
	out  bytes.Buffer
	room int
	end  bool
}

func (s *stream) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *stream) Write([]byte) (int, error)        { panic("a Framed waits for nothing") }
func (s *stream) Close() error                     { return nil }
func (s *stream) CloseWrite() error                { return nil }
func (s *stream) Reset() error                     { return nil }
func (s *stream) End() error                       { s.end = true; return nil }
func (s *stream) Await() error                     { return nil }
func (s *stream) LocalAddr() net.Addr              { return nil }
func (s *stream) RemoteAddr() net.Addr             { return nil }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

func (s *stream) TryWrite(pieces ...[]byte) (bool, error) {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	if s.out.Len()+n > s.room {
		return false, nil
	}
	for _, p := range pieces {
		s.out.Write(p)
	}
	return true, nil
}

func TestFramedKeepsBoundaries(t *testing.T) {
	want := [][]byte{[]byte("one"), {}, bytes.Repeat([]byte{7}, MaxDatagram), {}, []byte("last")}
	var line stream
	line.room = 1 << 20
	f := NewFramed(&line)
	for _, p := range want {
		if n, err := f.Write(p); n != len(p) || err != nil {
			t.Fatalf("write of %d bytes: %d, %v", len(p), n, err)
		}
	}
	sent := line.out.Bytes()
	for name, in := range map[string]io.Reader{
		"at once":     bytes.NewReader(sent),
		"by the byte": iotest.OneByteReader(bytes.NewReader(sent)),
		"in halves":   iotest.HalfReader(bytes.NewReader(sent)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(NewFramed(&stream{in: in}))
			if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("ended with %v", err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		})
	}
}

func readAll(f *Framed) (all [][]byte, err error) {
	for {
		p, err := f.Next()
		if err != nil {
			f.Release()
			return all, err
		}
		all = append(all, append([]byte{}, p...))
	}
}

func TestFramedReadCuts(t *testing.T) {
	f := NewFramed(&stream{in: bytes.NewReader([]byte("\x00\x04abcd\x00\x01e"))})
	p := make([]byte, 2)
	for _, want := range []string{"ab", "e"} {
		n, err := f.Read(p)
		if got := string(p[:n]); got != want || err != nil {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}
}

func TestFramedThatIsCut(t *testing.T) {
	for _, in := range []string{"\x00", "\x00\x04abc"} {
		if _, err := readAll(NewFramed(&stream{in: bytes.NewReader([]byte(in))})); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q ended with %v, want %v", in, err, io.ErrUnexpectedEOF)
		}
	}
}

func TestFramedDropsWhatCannotGo(t *testing.T) {
	line := &stream{room: 10}
	f := NewFramed(line)
	for _, tt := range []struct {
		size int
		want error
	}{{6, nil}, {1, ErrDropped}, {0, nil}, {MaxDatagram + 1, ErrTooLong}} {
		if _, err := f.Write(make([]byte, tt.size)); !errors.Is(err, tt.want) {
			t.Errorf("a datagram of %d bytes: %v, want %v", tt.size, err, tt.want)
		}
	}
	if got, want := line.out.Bytes(), []byte{0, 6, 0, 0, 0, 0, 0, 0, 0, 0}; !bytes.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
	if err := f.Close(); err != nil || !line.end {
		t.Errorf("Close: %v, ended %v", err, line.end)
	}
}

// FuzzFramed reads what a stranger writes: the datagrams are the ones that stand there, whatever pieces they come in.
func FuzzFramed(f *testing.F) {
	for _, seed := range []string{"", "\x00", "\x00\x00", "\x00\x01a\x00\x00\x00\x02bc", "\xff\xff"} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		whole, wholeErr := readAll(NewFramed(&stream{in: bytes.NewReader(in)}))
		pieces, err := readAll(NewFramed(&stream{in: &stepReader{in, int(step)%7 + 1}}))
		if diff := cmp.Diff(whole, pieces); diff != "" || (err == io.EOF) != (wholeErr == io.EOF) {
			t.Errorf("in pieces it is something else (%v, %v): %s", err, wholeErr, diff)
		}
		var again []byte
		for _, p := range whole {
			h := Header(len(p))
			again = append(append(again, h[:]...), p...)
		}
		if !bytes.HasPrefix(in, again) || (len(again) == len(in)) != (wholeErr == io.EOF) {
			t.Errorf("%d bytes were read of %d, %v", len(again), len(in), wholeErr)
		}
	})
}

type stepReader struct {
	p    []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.p) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.step)], r.p)
	r.p = r.p[n:]
	return n, nil
}
