package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"culvert/internal/config"
)

// Who runs `culvert lb` with --allow-ips does not expect that the entrypoints of the file let everyone in.
func TestAllowIPsHoldsForEntrypointsOfTheFile(t *testing.T) {
	app, closed, open := service(t, "app: "), fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	file := filepath.Join(t.TempDir(), "culvert.yaml")
	write := func(name, allow string) {
		t.Helper()
		text := fmt.Sprintf("%s\nentrypoints:\n- {name: %s, addr: %q, routes: [{upstream: app}]}\n- {name: open, addr: %q, allow: [0.0.0.0/0], routes: [{upstream: app}]}\n"+
			"upstreams: [{name: app, members: [{address: %q}]}]\n", allow, name, closed, open, app)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("closed", "data_allow_ips: 127.0.0.2")
	s, _ := startServer(t, loaded(t, config.LB, nil, "config="+file))
	for _, when := range []string{"at the start", "after a reload, which leaves settings as they are"} {
		for _, tt := range []struct {
			source, addr string
			want         bool
		}{{"127.0.0.1", closed, false}, {"127.0.0.2", closed, true}, {"127.0.0.1", open, true}} {
			if got := isServed(t, tt.source, tt.addr); got != tt.want {
				t.Errorf("%s, %s at %s: served %t, want %t", when, tt.source, tt.addr, got, tt.want)
			}
		}
		write("renamed", "data_allow_ips: 127.0.0.3")
		warnings, err := s.Reload()
		if err != nil {
			t.Fatal(err)
		}
		if want := "what has changed of data_allow_ips waits for the next start"; len(warnings) != 1 || warnings[0] != want {
			t.Errorf("warnings %q, want %q", warnings, want)
		}
	}
}

// isServed says whether a visitor hears anything.
func isServed(t *testing.T, source, addr string) bool {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).Dial("tcp", addr)
	if errors.Is(err, syscall.ECONNRESET) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = c.Write([]byte("hello\n")) // a failure shows in what is read
	n, err := c.Read(make([]byte, 1))
	if n == 0 && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s at %s: %v", source, addr, err)
	}
	return n > 0
}
