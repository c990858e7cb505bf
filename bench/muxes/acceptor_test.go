package muxes

import (
	"io"
	"testing"
)

// The opener's first byte says what it wants of the acceptor.
const (
	wantEcho = 'e' // all bytes back, in pieces as they come
	wantDown = 'd' // bytes without end
	wantOnce = 'o' // one byte back, then the end
)

const (
	small = 128      // bytes of a small echo
	block = 64 << 10 // bytes of a bulk transfer's write and read
)

// accept serves a session's streams until it ends.
func accept(s session) {
	for {
		st, err := s.Accept()
		if err != nil {
			return
		}
		go serve(st)
	}
}

func serve(st stream) {
	defer st.Close()
	var want [1]byte
	if _, err := io.ReadFull(st, want[:]); err != nil {
		return
	}
	switch want[0] {
	case wantEcho:
		buf := make([]byte, 512)
		for {
			n, err := st.Read(buf)
			if err != nil {
				return
			}
			if _, err := st.Write(buf[:n]); err != nil {
				return
			}
		}
	case wantDown:
		for buf := make([]byte, block); ; {
			if _, err := st.Write(buf); err != nil {
				return
			}
		}
	case wantOnce:
		_, _ = st.Write(want[:])
	}
}

// open opens streams that want the same.
func open(tb testing.TB, s session, n int, want byte) []stream {
	tb.Helper()
	var all []stream
	for range n {
		st, err := s.Open()
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := st.Write([]byte{want}); err != nil {
			tb.Fatal(err)
		}
		all = append(all, st)
	}
	return all
}

// echo sends a small message and waits until it is back.
func echo(st stream, buf []byte) error {
	if _, err := st.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(st, buf)
	return err
}

func TestEachCarriesBytes(t *testing.T) {
	for _, m := range multiplexers() {
		t.Run(m.name, func(t *testing.T) {
			opener, acceptor := pair(t, m)
			go accept(acceptor)
			for i, st := range open(t, opener, 3, wantEcho) {
				buf := []byte{byte(i), 1, 2, 3}
				if err := echo(st, buf); err != nil || buf[0] != byte(i) || buf[3] != 3 {
					t.Errorf("stream %d: got %v, %v", i, buf, err)
				}
				st.Close()
			}
			down := open(t, opener, 1, wantDown)[0]
			if _, err := io.ReadFull(down, make([]byte, 8<<20)); err != nil {
				t.Errorf("download: %v", err)
			}
			once := open(t, opener, 1, wantOnce)[0]
			if got, err := io.ReadAll(once); err != nil || string(got) != string(rune(wantOnce)) {
				t.Errorf("once: got %q, %v", got, err)
			}
		})
	}
}
