package upstream

import (
	"io"
	"strings"
	"testing"
)

func TestRestBeginsWithTheFirstBytes(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent bool
		want string
	}{
		{"they are still to be sent", false, "hello world"},
		{"they were sent", true, " world"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := tcpPair(t)
			if _, err := io.WriteString(near, "hello world"); err != nil {
				t.Fatal(err)
			}
			near.CloseWrite()
			f := ReadFirst(far, 5)
			<-f.Ready()
			if p, err := f.Bytes(); string(p) != "hello" || err != nil {
				t.Errorf("first bytes are %q, %v, want hello", p, err)
			}
			p, err := io.ReadAll(f.Rest(FromTCP(far), tt.sent))
			if string(p) != tt.want || err != nil {
				t.Errorf("the rest is %q, %v, want %q and an end", p, err, tt.want)
			}
			f.Wait()
		})
	}
}

func TestRestGivesBytesInPieces(t *testing.T) {
	near, far := tcpPair(t)
	if _, err := io.WriteString(near, "abcdef"); err != nil {
		t.Fatal(err)
	}
	near.Close()
	f := ReadFirst(far, MaxFirst)
	var got strings.Builder
	r := f.Rest(FromTCP(far), false)
	for p := make([]byte, 4); ; {
		n, err := r.Read(p)
		got.Write(p[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != "abcdef" {
		t.Errorf("got %q", got.String())
	}
}

func TestFirstOfAVisitorThatEnds(t *testing.T) {
	near, far := tcpPair(t)
	near.CloseWrite()
	f := ReadFirst(far, 10)
	f.OnFailure(func() { t.Error("an orderly end was reported as a failure") })
	f.Wait()
	if p, err := f.Bytes(); len(p) != 0 || err != io.EOF {
		t.Errorf("first bytes are %q, %v, want EOF", p, err)
	}
	f.OnFailure(func() { t.Error("an orderly end was reported as a failure") })
	if _, err := f.Rest(FromTCP(far), false).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the rest is %v, want EOF", err)
	}
}

func TestFirstReportsAFailureOnce(t *testing.T) {
	t.Run("asked before", func(t *testing.T) {
		near, far := tcpPair(t)
		f := ReadFirst(far, 10)
		failed := make(chan struct{})
		f.OnFailure(func() { close(failed) }) // a second call would panic
		_ = FromTCP(near).Reset()
		<-failed
		f.Wait()
		if _, err := f.Rest(FromTCP(far), false).Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("the rest is %v, want the failure", err)
		}
	})
	t.Run("asked after", func(t *testing.T) {
		near, far := tcpPair(t)
		_ = FromTCP(near).Reset()
		f := ReadFirst(far, 10)
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
	f := ReadFirst(far, 10)
	far.Close()
	f.Wait()
}
