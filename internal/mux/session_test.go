package mux_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"culvert/internal/mux"
)

// tcpPair is both ends of a connection on loopback.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

// sessions are both ends of a session over one link.
func sessions(t testing.TB, cfg mux.Config) (client, server *mux.Session) {
	t.Helper()
	a, b := tcpPair(t)
	client, err := mux.Client(a, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if server, err = mux.Server(b, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close(nil)
		server.Close(nil)
	})
	return client, server
}

// open makes a confirmed stream.
func open(t testing.TB, from, to *mux.Session) (near, far *mux.Stream) {
	t.Helper()
	near, err := from.Open(t.Context(), []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if far, err = to.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	if string(far.Meta()) != "hello" {
		t.Fatalf("metadata is %q", far.Meta())
	}
	if err := far.Confirm(); err != nil {
		t.Fatal(err)
	}
	if err := near.Result(t.Context()); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestStreamsCarryBytesBothWaysAndEndByDirection(t *testing.T) {
	client, server := sessions(t, mux.Config{})
	for _, p := range [][2]*mux.Session{{client, server}, {server, client}} {
		near, far := open(t, p[0], p[1])
		data := make([]byte, 3<<20+17)
		_, _ = rand.Read(data)
		go func() {
			_, _ = near.Write(data)
			_ = near.CloseWrite()
		}()
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes came of %d, %v", len(got), len(data), err)
		}
		if _, err := far.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		if err := far.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(near); string(got) != "answer" || err != nil {
			t.Fatalf("%q came, %v", got, err)
		}
		near.Close()
		far.Close()
	}
	if n := client.Streams() + server.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestRefusalsCertify(t *testing.T) {
	client, server := sessions(t, mux.Config{})
	st, err := server.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = st.Write([]byte("early"))
	far, err := client.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Refuse(7, "no")
	var refusal *mux.Refusal
	if err := st.Result(t.Context()); !errors.As(err, &refusal) || refusal.Code != 7 || refusal.Detail != "no" {
		t.Errorf("result is %v", err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.As(err, &refusal) {
		t.Errorf("read gives %v", err)
	}
}

func TestAStreamGoesOnOverANewLink(t *testing.T) {
	ac, as := tcpPair(t)
	client, err := mux.Client(ac, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(nil)
	server, err := mux.Server(as, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close(nil)
	near, far := open(t, server, client)
	data := make([]byte, 64<<20)
	_, _ = rand.Read(data)
	go func() {
		_, _ = far.Write(data)
		_ = far.CloseWrite()
	}()
	go func() {
		for last := ac; ; {
			select {
			case <-client.Done():
				return
			case <-client.Wants():
			case <-time.After(5 * time.Millisecond):
				last.Close()
				continue
			}
			a, b := tcpPair(t)
			joined := make(chan error, 1)
			go func() {
				g, err := mux.Greet(b, time.Second)
				if err == nil {
					err = g.Join(server)
				}
				joined <- err
			}()
			if err := client.Attach(context.Background(), a); err != nil {
				t.Log(err)
			}
			if err := <-joined; err != nil {
				t.Log(err)
			}
			last = a
		}
	}()
	got, err := io.ReadAll(near)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came of %d, %v", len(got), len(data), err)
	}
	t.Logf("%+v", client.Stats())
}
