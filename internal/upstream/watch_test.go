package upstream

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

var errForbidden = errors.New("forbidden")

// noSecret is certain of what does not begin like "secret", and forbids what does.
func noSecret(p []byte) (more bool, err error) {
	const word = "secret"
	if len(p) >= len(word) {
		if string(p[:len(word)]) == word {
			return false, errForbidden
		}
		return false, nil
	}
	return word[:len(p)] == string(p), nil
}

func TestFirstUnderAGuard(t *testing.T) {
	tests := []struct {
		name    string
		read    string   // before the First
		pieces  []string // then, a second apart
		want    string
		err     error
		after   time.Duration // from the call on
		certain bool
	}{
		{"something else, read already", "hello", nil, "hello", nil, 0, true},
		{"something else", "", []string{"hello"}, "hello", nil, 0, true},
		{"the word, read already", "secret!", nil, "", errForbidden, 0, true},
		{"the word", "", []string{"secret!"}, "", errForbidden, 0, true},
		{"something that begins like it, read already", "sec", []string{"ond"}, "sec", nil, 200 * time.Millisecond, false},
		{"something that begins like it", "", []string{"sec", "ond"}, "sec", nil, 200 * time.Millisecond, false},
		{"an end", "", []string{""}, "", io.EOF, 0, false},
		{"an end after something that begins like it", "", []string{"sec", ""}, "sec", nil, 200 * time.Millisecond, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				done := make(chan struct{})
				go func() {
					defer close(done)
					for i, p := range tt.pieces {
						if i > 0 || tt.read != "" {
							time.Sleep(time.Second)
						}
						if p == "" {
							_ = near.Close()
							return
						}
						_, _ = io.WriteString(near, p)
					}
				}()
				begun := time.Now()
				f := ReadFirst(far, 100, Begun{Read: []byte(tt.read), Guard: noSecret})
				p, err := f.Bytes()
				if took := time.Since(begun); string(p) != tt.want || !errors.Is(err, tt.err) || took != tt.after {
					t.Errorf("got %q, %v after %s; want %q, %v after %s", p, err, took, tt.want, tt.err, tt.after)
				}
				if got := f.Watch().Certain(); tt.err == nil && got != tt.certain {
					t.Errorf("certain: got %t, want %t", got, tt.certain)
				}
				_ = far.Close()
				<-done
			})
		})
	}
}

// TestFirstHoldsPiecesTogether has the pieces come faster than the hold ends.
func TestFirstHoldsPiecesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			sends, want string
			err         error
		}{{"secrex", "secrex", nil}, {"secret", "", errForbidden}} {
			near, far := net.Pipe()
			f := ReadFirst(far, 100, Begun{Guard: noSecret, Hold: time.Minute})
			for i := range tt.sends {
				if _, err := io.WriteString(near, tt.sends[i:i+1]); err != nil {
					t.Fatal(err)
				}
			}
			if p, err := f.Bytes(); string(p) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q: got %q, %v", tt.sends, p, err)
			}
			_ = near.Close()
			_ = far.Close()
		}
	})
}

// TestWatchGoesOnAfterTheFirst is about what comes when the service has been dialled already: it is judged together with
// what came before, whether that was let go or is held still.
func TestWatchGoesOnAfterTheFirst(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before string        // what is there for the First
		pause  time.Duration // before the Stop
		first  string        // what the First gives
		after  []string
		want   []string
		err    error
	}{
		{"nothing before", "", time.Second, "", []string{"hello"}, []string{"hello"}, nil},
		{"the word, nothing before", "", time.Second, "", []string{"secret"}, nil, errForbidden},
		{"the word in pieces, nothing before", "", time.Second, "", []string{"sec", "ret"}, nil, errForbidden},
		{"the rest of it, the beginning was let go", "sec", time.Second, "sec", []string{"ret"}, nil, errForbidden},
		{"something else, the beginning was let go", "sec", time.Second, "sec", []string{"ond", "more"}, []string{"ond", "more"}, nil},
		{"the rest of it, the beginning is held", "sec", 0, "", []string{"ret"}, nil, errForbidden},
		{"something else, the beginning is held", "sec", 0, "", []string{"ond"}, []string{"second"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				f := ReadFirst(far, 100, Begun{Guard: noSecret, Hold: 200 * time.Millisecond})
				if tt.before != "" {
					if _, err := io.WriteString(near, tt.before); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				time.Sleep(tt.pause)
				if p, err := f.Stop(); string(p) != tt.first || err != nil {
					t.Fatalf("first %q, %v; want %q", p, err, tt.first)
				}
				go func() {
					for _, p := range tt.after {
						_, _ = io.WriteString(near, p)
					}
				}()
				r, w := NewReader(far, 100), f.Watch()
				defer r.Release()
				for _, want := range tt.want {
					if p, err := w.Next(r); string(p) != want || err != nil {
						t.Fatalf("got %q, %v; want %q", p, err, want)
					}
				}
				if tt.err != nil {
					for range 2 { // and stays so
						if p, err := w.Next(r); len(p) > 0 || !errors.Is(err, tt.err) {
							t.Fatalf("got %q, %v; want %v", p, err, tt.err)
						}
					}
				}
			})
		})
	}
}

// TestWatchLetsGoInTime has a relay's own deadlines come before and after the hold ends.
func TestWatchLetsGoInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		w := Watch{guard: noSecret, hold: 200 * time.Millisecond}
		r := NewReader(far, 100)
		defer r.Release()
		_ = far.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if p, err := w.Next(r); len(p) > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("nothing said: %q, %v", p, err)
		}
		_ = far.SetReadDeadline(time.Time{})
		begun := time.Now()
		go func() { _, _ = io.WriteString(near, "s") }()
		if p, err := w.Next(r); string(p) != "s" || err != nil || time.Since(begun) != 200*time.Millisecond {
			t.Fatalf("got %q, %v after %s", p, err, time.Since(begun))
		}
		go func() {
			time.Sleep(time.Hour) // no deadline is left behind
			_, _ = io.WriteString(near, "ecret")
		}()
		if p, err := w.Next(r); len(p) > 0 || !errors.Is(err, errForbidden) {
			t.Fatalf("got %q, %v", p, err)
		}
	})
}

func TestNoWatchLetsEverythingPass(t *testing.T) {
	var w *Watch
	if p, err := w.Judge([]byte("secret")); string(p) != "secret" || err != nil || !w.Certain() {
		t.Errorf("got %q, %v", p, err)
	}
}
