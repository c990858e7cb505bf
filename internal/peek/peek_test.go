package peek

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// line matches a line of at most 8 bytes that begins with an 'a'.
func line(p []byte) Match {
	switch {
	case len(p) > 0 && p[0] != 'a':
		return No
	case len(p) > 0 && p[len(p)-1] == '\n':
		return Yes
	}
	return More
}

func TestReaderReadsUntilItIsCertain(t *testing.T) {
	tests := []struct {
		name   string
		pieces []string
		max    int
		match  Match
		err    error
		read   string
	}{
		{"at once", []string{"a\n"}, 100, Yes, nil, "a\n"},
		{"in pieces", []string{"a", "b", "c\n"}, 100, Yes, nil, "abc\n"},
		{"something else", []string{"b"}, 100, No, nil, "b"},
		{"too long", []string{"abcd", "efgh", "\n"}, 8, More, ErrTooLong, "abcdefgh"},
		{"an end before", []string{"ab"}, 100, More, ErrEnded, "ab"},
		{"nothing", nil, 100, More, ErrEnded, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() {
				for _, p := range tt.pieces {
					if _, err := io.WriteString(near, p); err != nil {
						break // it is certain already
					}
				}
				_ = near.Close()
			}()
			defer far.Close()
			r := New(far, tt.max)
			match, err := r.Until(time.Now().Add(time.Minute), line)
			if match != tt.match || !errors.Is(err, tt.err) || string(r.Bytes()) != tt.read {
				t.Errorf("got %d, %v and %q; want %d, %v and %q", match, err, r.Bytes(), tt.match, tt.err, tt.read)
			}
		})
	}
}

func TestReaderHasOneDeadlineForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		done := make(chan struct{})
		go func() { // a byte a second, so that no single read takes long
			defer close(done)
			for {
				if _, err := near.Write([]byte("a")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		begun := time.Now()
		r := New(far, 1000)
		_, err := r.Until(begun.Add(5*time.Second+time.Millisecond), line)
		if took := time.Since(begun); !errors.Is(err, ErrTimeout) || took != 5*time.Second+time.Millisecond {
			t.Errorf("%v after %s", err, took)
		}
		if string(r.Bytes()) != "aaaaaa" {
			t.Errorf("got %q", r.Bytes())
		}
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
		var p [1]byte
		if _, err := far.Read(p[:]); err != nil {
			t.Errorf("after Done: %v", err)
		}
		_ = far.Close()
		<-done
	})
}

func TestReaderGivesBackWhatIsNotDiscarded(t *testing.T) {
	near, far := net.Pipe()
	go func() { _, _ = io.WriteString(near, "a\nrest") }()
	r := New(far, 100)
	if m, err := r.Until(time.Now().Add(time.Minute), func(p []byte) Match {
		if len(p) >= 6 {
			return Yes
		}
		return More
	}); m != Yes || err != nil {
		t.Fatal(m, err)
	}
	r.Discard(2)
	if string(r.Bytes()) != "rest" {
		t.Errorf("got %q", r.Bytes())
	}
	go func() { _, _ = io.WriteString(near, "!") }()
	if m, err := r.Until(time.Now().Add(time.Minute), func(p []byte) Match {
		if string(p) == "rest!" {
			return Yes
		}
		return More
	}); m != Yes || err != nil {
		t.Errorf("%d, %v with %q", m, err, r.Bytes())
	}
}
