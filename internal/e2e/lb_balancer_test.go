//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A balancer is `culvert lb` with a file, and a control port for its API and metrics.
type balancer struct {
	*server
	file string
	top  string // the file's top level, which every version of the file has
}

// startLB starts a balancer with the entrypoints and upstreams given, and settings of its top level before them.
func startLB(t *testing.T, text string, settings ...string) *balancer {
	t.Helper()
	return startLBWith(t, nil, text, settings...)
}

// startLBWith adds to the environment.
func startLBWith(t *testing.T, env []string, text string, settings ...string) *balancer {
	t.Helper()
	s := &server{control: freeAddr(t), token: rand.Text(), state: t.TempDir(), env: env}
	top := fmt.Sprintf("control_addr: 127.0.0.1\ncontrol_port: %s\ntoken_file: %s\nauto_tls_path: %s\nauto_tls_san: 127.0.0.1\n",
		port(t, s.control), write(t, s.state, "token", s.token+"\n", 0o600), s.state)
	for _, line := range append(settings, "drain_timeout: 2s") { // flows of UDP are open until they are idle for long
		if key, _, _ := strings.Cut(line, ":"); !strings.Contains(top, key+":") {
			top += line + "\n"
		}
	}
	b := &balancer{server: s, file: filepath.Join(t.TempDir(), "culvert.yaml"), top: top}
	b.write(t, text)
	s.args = []string{culvert(), "lb", "--config", b.file}
	s.again(t)
	return b
}

// write replaces the file, as an editor does.
func (b *balancer) write(t *testing.T, text string) {
	t.Helper()
	write(t, filepath.Dir(b.file), "next", b.top+text, 0o600)
	if err := os.Rename(filepath.Join(filepath.Dir(b.file), "next"), b.file); err != nil {
		t.Fatal(err)
	}
}

// reload replaces the file and makes the balancer take it.
func (b *balancer) reload(t *testing.T, text string) {
	t.Helper()
	b.write(t, text)
	if code, body := b.api(t, http.MethodPost, "/api/reload", nil); code/100 != 2 {
		t.Fatalf("POST /api/reload: %d %s", code, body)
	}
}

// hangUp sends SIGHUP, and waits until the balancer has said so often in all that it has the file or not.
func (b *balancer) hangUp(t *testing.T, times int) {
	t.Helper()
	b.signal(t, syscall.SIGHUP)
	until(t, fmt.Sprintf("reload %d", times), func() bool {
		return strings.Count(b.out.String(), reloadedLine)+strings.Count(b.out.String(), notReloadedLine) >= times
	})
}

// What the log says of a reload.
const (
	reloadedLine    = `configuration is in effect`
	notReloadedLine = `configuration refused, the old one stays`
)

// api asks the control port as its operator.
func (s *server) api(t *testing.T, method, path string, body any) (code int, answer string) {
	t.Helper()
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		send = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+s.control+path, send)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
	}
	c := http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(b)
}

// mustAPI is api that has to succeed.
func (s *server) mustAPI(t *testing.T, method, path string, body any) string {
	t.Helper()
	code, answer := s.api(t, method, path, body)
	if code/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, code, answer)
	}
	return answer
}

// memberList is a list of members in the file.
func memberList(addrs ...string) string {
	var items []string
	for _, a := range addrs {
		items = append(items, fmt.Sprintf("{address: %q}", a))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// oneEntrypoint is the shortest file: an entrypoint, and an upstream "app" to which more lines may be added, each with
// four spaces before it.
func oneEntrypoint(addr, members string, more ...string) string {
	text := fmt.Sprintf("entrypoints:\n  - name: devices\n    addr: %q\n    routes: [{upstream: app}]\nupstreams:\n  - name: app\n    members: %s\n", addr, members)
	for _, line := range more {
		text += "    " + line + "\n"
	}
	return text
}

// refused says whether nothing listens at the address, as a TCP check of a balancer would find it.
func refused(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err == nil {
		c.Close()
		return fmt.Errorf("%s accepts", addr)
	}
	if !strings.Contains(err.Error(), "refused") {
		return err
	}
	return nil
}

// closes waits until the address refuses.
func closes(t *testing.T, addr string, within time.Duration) time.Duration {
	t.Helper()
	return eventually(t, within, addr+" refuses", func(context.Context) error { return refused(addr) })
}

// addAddresses gives lo addresses of IPv6 for the sources of a test; those of 127.0.0.0/8 are all there.
func addAddresses(t *testing.T, addrs ...string) {
	t.Helper()
	if os.Getenv(insideKey) == "" {
		t.Skip("only root runs in a namespace of its own")
	}
	for _, a := range addrs {
		must(t, program{argv: []string{"ip", "-6", "address", "replace", a + "/128", "dev", "lo", "nodad"}})
	}
}

// freeAddrOn is a free address like freeAddr, of another host of the loopback interface.
func freeAddrOn(t *testing.T, host string) string {
	t.Helper()
	return net.JoinHostPort(host, port(t, freeAddr(t)))
}

func portOf(addr string) string { return fmt.Sprint(netip.MustParseAddrPort(addr).Port()) }
