package upstream

import (
	"io"
	"net"
	"testing"
)

func TestFirstGivesWhatTheVisitorSays(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait func(*First) // after the bytes were sent
	}{
		{"asked for its bytes", func(f *First) { _, _ = f.Bytes() }},
		{"waited for", func(f *First) { f.Wait() }},
		{"ready", func(f *First) { <-f.Ready() }},
	} {
		for _, said := range []string{"before", "after"} {
			t.Run(tt.name+", said "+said, func(t *testing.T) {
				near, far := tcpPair(t)
				say := func() {
					if _, err := io.WriteString(near, "hello world"); err != nil {
						t.Fatal(err)
					}
					near.CloseWrite()
				}
				if said == "before" {
					say()
				}
				f := ReadFirst(far, 5, Begun{})
				if said == "after" {
					say()
				}
				tt.wait(f)
				if p, err := f.Bytes(); string(p) != "hello" || err != nil {
					t.Errorf("first bytes are %q, %v, want hello", p, err)
				}
				if p, err := f.Stop(); string(p) != "hello" || err != nil {
					t.Errorf("at the stop they are %q, %v, want hello", p, err)
				}
				if p, err := io.ReadAll(far); string(p) != " world" || err != nil {
					t.Errorf("the rest is %q, %v, want world and an end", p, err)
				}
			})
		}
	}
}

func TestStopOfASilentVisitorGivesTheConnectionBack(t *testing.T) {
	near, far := tcpPair(t)
	for range 3 { // a second First may follow
		f := ReadFirst(far, 10, Begun{})
		f.OnFailure(func() { t.Error("a stop was reported as a failure") })
		if p, err := f.Stop(); len(p) != 0 || err != nil {
			t.Errorf("at the stop there are %q, %v, want nothing", p, err)
		}
		<-f.Ready()
	}
	if _, err := io.WriteString(near, "late"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, make([]byte, 4)); err != nil {
		t.Errorf("read after the stop: %v", err)
	}
}

// TestStopLosesNothing stops while the visitor speaks.
func TestStopLosesNothing(t *testing.T) {
	const words = "never lost"
	for i := range 300 {
		near, far := tcpPair(t)
		f := ReadFirst(far, 100, Begun{})
		said := make(chan struct{})
		go func() {
			defer close(said)
			_, _ = io.WriteString(near, words)
			near.Close()
		}()
		if i%2 == 0 {
			<-said
		}
		first, err := f.Stop()
		if err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(far)
		if all := string(first) + string(rest); all != words || err != nil {
			t.Fatalf("%q and %q, %v, want %q together", first, rest, err, words)
		}
		<-said
		far.Close()
	}
}

// TestFirstOfAPipe reads a connection without a descriptor.
func TestFirstOfAPipe(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	f := ReadFirst(far, 10, Begun{})
	if p, err := f.Stop(); len(p) != 0 || err != nil {
		t.Errorf("at the stop there are %q, %v, want nothing", p, err)
	}
	f = ReadFirst(far, 10, Begun{})
	go func() { _, _ = io.WriteString(near, "hello") }()
	if p, err := f.Bytes(); string(p) != "hello" || err != nil {
		t.Errorf("first bytes are %q, %v, want hello", p, err)
	}
}

func TestFirstOfAVisitorThatEnds(t *testing.T) {
	near, far := tcpPair(t)
	near.CloseWrite()
	f := ReadFirst(far, 10, Begun{})
	f.OnFailure(func() { t.Error("an orderly end was reported as a failure") })
	f.Wait()
	if p, err := f.Bytes(); len(p) != 0 || err != io.EOF {
		t.Errorf("first bytes are %q, %v, want EOF", p, err)
	}
	f.OnFailure(func() { t.Error("an orderly end was reported as a failure") })
	if _, err := f.Stop(); err != io.EOF {
		t.Errorf("the stop gives %v, want EOF", err)
	}
}

func TestFirstReportsAFailureOnce(t *testing.T) {
	t.Run("asked before", func(t *testing.T) {
		near, far := tcpPair(t)
		f := ReadFirst(far, 10, Begun{})
		failed := make(chan struct{})
		f.OnFailure(func() { close(failed) }) // a second call would panic
		_ = FromTCP(near).Reset()
		<-failed
		f.Wait()
		if _, err := f.Stop(); err == nil || err == io.EOF {
			t.Errorf("the stop gives %v, want the failure", err)
		}
	})
	t.Run("asked after", func(t *testing.T) {
		near, far := tcpPair(t)
		_ = FromTCP(near).Reset()
		f := ReadFirst(far, 10, Begun{})
		f.Wait()
		failed := false
		f.OnFailure(func() { failed = true })
		if !failed {
			t.Error("the failure was not reported")
		}
	})
}

func TestFirstEndsWithTheConnection(t *testing.T) {
	_, far := tcpPair(t)
	f := ReadFirst(far, 10, Begun{})
	far.Close()
	f.Wait()
	if _, err := f.Stop(); err == nil || err == io.EOF {
		t.Errorf("the stop gives %v, want that the connection is closed", err)
	}
}
