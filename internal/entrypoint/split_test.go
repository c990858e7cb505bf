package entrypoint

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func splitListener(t *testing.T, take func(*tls.Conn)) *Split {
	t.Helper()
	l := tlsListener(t, nil)
	l.cfg.TLS.NextProtos = []string{"http/1.1", "ours/1"}
	s := NewSplit(l, "ours/1", take)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSplitTellsProtocolsApart(t *testing.T) {
	taken := make(chan string, 10)
	s := splitListener(t, func(c *tls.Conn) {
		defer c.Close()
		got, _ := io.ReadAll(c)
		taken <- string(got)
	})
	given := make(chan net.Conn)
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				close(given)
				return
			}
			given <- c
		}
	}()
	for _, tt := range []struct {
		name   string
		config *tls.Config
		ours   bool
	}{
		{"ours", &tls.Config{NextProtos: []string{"ours/1"}}, true},
		{"HTTP", &tls.Config{NextProtos: []string{"http/1.1"}}, false},
		{"both", &tls.Config{NextProtos: []string{"ours/1", "http/1.1"}}, false},
		{"none", &tls.Config{}, false},
	} {
		tt.config.InsecureSkipVerify = true
		c, err := tls.Dial("tcp", s.Addr().String(), tt.config)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "hi")
		c.Close()
		select {
		case got := <-taken:
			if !tt.ours || got != "hi" {
				t.Errorf("%s was taken with %q", tt.name, got)
			}
		case c := <-given:
			if got, _ := io.ReadAll(c); tt.ours || string(got) != "hi" {
				t.Errorf("%s was given with %q", tt.name, got)
			}
			c.Close()
		}
	}
	// The protocol is of a time that knows TLS 1.3.
	c, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"ours/1"}, MaxVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("TLS 1.2: %v", err)
	}
	s.Close()
	if _, ok := <-given; ok || len(taken) > 0 {
		t.Error("TLS 1.2 was let in")
	}
}

func TestSplitCloseEndsWhatIsBeingTaken(t *testing.T) {
	taking, ended := make(chan struct{}), make(chan error, 1)
	s := splitListener(t, func(c *tls.Conn) {
		close(taking)
		_, err := c.Read(make([]byte, 1))
		c.Close()
		ended <- err
	})
	accepted := make(chan error, 1)
	go func() {
		_, err := s.Accept()
		accepted <- err
	}()
	c, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"ours/1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-taking
	s.Close()
	select { // Close has waited for it
	case <-ended:
	default:
		t.Error("take goes on after Close")
	}
	select {
	case err := <-accepted:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: got %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("accept goes on after Close")
	}
}
