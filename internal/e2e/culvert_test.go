//go:build linux

package e2e

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// culvert is the binary under test.
func culvert() string { return os.Getenv(binKey) }

// A server is a culvert server on free ports of the loopback interface.
type server struct {
	*process
	control string // address of the control port
	data    string // address of the HTTP entrypoint
	token   string
	state   string // folder of its CA; the same after again
	args    []string
	env     []string
	idle    resources // what it holds without clients and visitors
}

// startServer starts `culvert server` with a fresh token, and waits until it is ready.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{control: freeAddr(t), data: freeAddr(t), token: rand.Text(), state: t.TempDir()}
	s.args = append([]string{
		culvert(), "server", "--control-addr", "127.0.0.1", "--control-port", port(t, s.control),
		"--data-addr", "127.0.0.1", "--port", port(t, s.data),
		"--auto-tls-path", s.state, "--auto-tls-san", "127.0.0.1",
		"--token-file", write(t, s.state, "token", s.token+"\n", 0o600),
	}, args...)
	s.again(t)
	return s
}

// again starts the server once more, with the same ports, token and CA, after it has ended.
func (s *server) again(t *testing.T) {
	t.Helper()
	s.process = start(t, program{argv: s.args, env: s.env})
	eventually(t, patience, "server is ready", func(ctx context.Context) error {
		select {
		case <-s.done:
			t.Fatalf("%v has ended:\n%s", s.args, tail(s.out.String(), 40))
		default:
		}
		code, body, err := s.ask(ctx, "/readyz", "")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("/readyz: %d %s", code, body)
		}
		return err
	})
	s.idle = s.resources(t)
}

// client starts `culvert client` of this server; it does not wait for its tunnels.
func (s *server) client(t *testing.T, args ...string) *process {
	t.Helper()
	return s.clientProgram(t, "client", args...)
}

// clientProgram starts a client command of this server: "client", or "http client", "tcp client".
func (s *server) clientProgram(t *testing.T, command string, args ...string) *process {
	t.Helper()
	return s.clientBy(t, "wss://"+s.control, command, args...)
}

// clientBy starts a client command that reaches the server by another URL, as that of a relay.
func (s *server) clientBy(t *testing.T, url, command string, args ...string) *process {
	t.Helper()
	argv := append([]string{culvert()}, strings.Fields(command)...)
	argv = append(argv, "--url", url, "--token-file", s.state+"/token")
	return start(t, program{argv: append(argv, args...)})
}

// ask sends a GET to the control port, without trust in its certificate: the tests know whom they ask.
func (s *server) ask(ctx context.Context, path, token string) (code int, body string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.control+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	c := http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// status is the core of /status.
type status struct {
	Info struct {
		Version, Sha, Mode, Hostname string
		StartTime                    time.Time
	}
	Clients []struct {
		ClientID, RemoteAddr string
		Since                time.Time
		Upstreams            []string
		Links, Resumes       int
		RTTMillis            float64
	}
}

func (s *server) status(ctx context.Context) (st status, err error) {
	code, body, err := s.ask(ctx, "/status", s.token)
	if err != nil {
		return st, err
	}
	if code != http.StatusOK {
		return st, fmt.Errorf("/status: %d %s", code, body)
	}
	return st, json.Unmarshal([]byte(body), &st)
}

// members waits until exactly so many clients are within reach; the status lists those too that may come back.
func (s *server) members(t *testing.T, n int, within time.Duration) time.Duration {
	t.Helper()
	return eventually(t, within, strconv.Itoa(n)+" clients", func(ctx context.Context) error {
		st, err := s.status(ctx)
		if err != nil {
			return err
		}
		var ids []string
		for _, c := range st.Clients {
			if c.Links > 0 {
				ids = append(ids, c.ClientID)
			}
		}
		if len(ids) != n {
			err = fmt.Errorf("%d clients: %.300q", len(ids), ids)
		}
		return err
	})
}

// metrics are the samples of /metrics by name and labels, as written there.
func (s *server) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	code, body, err := s.ask(t.Context(), "/metrics", s.token)
	if err != nil || code != http.StatusOK {
		t.Fatalf("/metrics: %d %v", code, err)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		cut := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || cut < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			t.Fatalf("/metrics: %q: %v", line, err)
		}
		samples[line[:cut]] = v
	}
	return samples
}

// sum adds up the samples of a metric whose labels contain all of those given, as `code="200"`.
func sum(samples map[string]float64, name string, labels ...string) (total float64) {
	for key, v := range samples {
		have, rest, _ := strings.Cut(key, "{")
		if have != name {
			continue
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			total += v
		}
	}
	return total
}

// resources are what a process must give back.
type resources struct{ descriptors, goroutines int }

// resources leaves out the links beyond the first of each client: what comes under load stays.
func (s *server) resources(t *testing.T) resources {
	t.Helper()
	st, err := s.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	more := 0
	for _, c := range st.Clients {
		more += max(0, c.Links-1)
	}
	return resources{s.descriptors(t) - more, int(sum(s.metrics(t), "go_goroutines")) - more}
}

// settlesWithout ends the clients in order, and waits until the server holds no more than when it had started: nothing
// of them and of their visitors is left. With a client it may keep idle connections to what the client offers.
func (s *server) settlesWithout(t *testing.T, clients ...*process) {
	t.Helper()
	for _, c := range clients {
		c.signal(t, syscall.SIGTERM)
	}
	for _, c := range clients {
		if code := c.wait(t); code != 0 {
			t.Errorf("a client ended with exit code %d", code)
		}
	}
	s.members(t, 0, 10*time.Second)
	s.settles(t, s.idle)
}

// settles waits until the server holds no more than at an earlier moment: nothing of what came since is left.
func (s *server) settles(t *testing.T, base resources) {
	t.Helper()
	eventually(t, 20*time.Second, "server gives back descriptors and goroutines", func(context.Context) error {
		now := s.resources(t)
		if now.descriptors > base.descriptors || now.goroutines > base.goroutines {
			return fmt.Errorf("%+v, before %+v", now, base)
		}
		return nil
	})
}
