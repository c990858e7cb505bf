package cli

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"culvert/internal/pki"
)

const statusJSON = `{"info":{"version":"0.8.9","sha":"f4fc15b","mode":"tcp","startTime":"2026-03-01T11:11:00Z","hostname":"banzai4"},` +
	`"clients":[{"clientID":"730aa1bb96474cbc9f7e76c135e81da8","remoteAddr":"81.99.136.188:58102","since":"2026-03-01T11:45:00Z",` +
	`"upstreams":["localhost:8001","localhost:22"],"new":1}]}`

// statusServer is a control port with auto-TLS, as far as the status command needs it.
func statusServer(t *testing.T, status http.HandlerFunc) (addr string, ca *pki.Authority) {
	t.Helper()
	ca, err := pki.OpenAuthority(pki.Config{Dir: t.TempDir(), SANs: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(pki.CAPath, pki.CAHandler(ca.CA(), func(id string) ([sha256.Size]byte, bool) {
		return sha256.Sum256([]byte(testToken)), id == ""
	}))
	mux.HandleFunc("/", status)
	s := httptest.NewUnstartedServer(mux)
	// Not StartTLS: it would add a certificate of its own.
	s.Listener = tls.NewListener(s.Listener, &tls.Config{GetCertificate: ca.GetCertificate})
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), ca
}

func answerStatus(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+testToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = w.Write([]byte(statusJSON))
}

func TestStatusIsPrinted(t *testing.T) {
	addr, ca := statusServer(t, answerStatus)
	w := newWorld(t)
	caFile := filepath.Join(w.dir, "ca.crt")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.CA().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	want := `Querying server status. Version 1.2.3 - abc
Hostname: banzai4
Started: 49 minutes
Mode: tcp
Version:        0.8.9

Client ID                        Remote Address      Connected  Upstreams
730aa1bb96474cbc9f7e76c135e81da8 81.99.136.188:58102 15 minutes localhost:8001, localhost:22

Client ID                        Round Trip Links Resumes Connections
730aa1bb96474cbc9f7e76c135e81da8 0.0 ms     0     0       0
`
	for _, line := range []string{
		"status --url wss://" + addr + " --token-file DIR/token --auto-tls",
		"status --url wss://" + addr + "/connect --token-file DIR/token",
		"status --url wss://" + addr + " --token-file DIR/token --auto-tls=false --tls-ca DIR/ca.crt",
	} {
		if code := w.run(t, line); code != 0 || w.stdout.String() != want {
			t.Errorf("culvert %s: code %d\n%s%s", line, code, &w.stdout, &w.stderr)
		}
	}
	w.run(t, "status --url wss://"+addr+" --token-file DIR/token --output json")
	if got := w.stdout.String(); !strings.Contains(got, `      "new": 1`) || !strings.HasSuffix(got, "}\n") {
		t.Errorf("JSON: %s", got)
	}
}

func TestStatusSaysWhatIsWrong(t *testing.T) {
	addr, _ := statusServer(t, answerStatus)
	forbidden, _ := statusServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	moved, _ := statusServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/else", http.StatusFound) })
	other, _ := statusServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := newWorld(t)
	for _, test := range []struct{ line, want string }{
		{"--url wss://" + silent.Addr().String() + " --token-file DIR/token --timeout 100ms", "no answer from " + silent.Addr().String() + " within 100ms: is it the control port, and does a firewall let you through?"},
		{"--url wss://" + addr + " --token another-token-0123456", "the token is wrong, or someone is in between"},
		{"--url wss://" + addr + " --token-file DIR/token --auto-tls=false", "certificate"},
		{"--url ws://" + addr + " --token-file DIR/token --insecure-plaintext", addr},
		{"--url wss://127.0.0.1:1 --token-file DIR/token", "127.0.0.1:1"},
		{"--url wss://" + forbidden + " --token-file DIR/token", "but not read"},
		{"--url wss://" + moved + " --token-file DIR/token", "answers 302 Found"},
		{"--url wss://" + other + " --token-file DIR/token", "is it the control port"},
	} {
		code := w.run(t, "status "+test.line)
		if out := w.stderr.String(); code != 1 || !strings.Contains(out, test.want) || strings.Contains(out, "another-token") {
			t.Errorf("status %s: code %d, want it to say %q\n%s", test.line, code, test.want, out)
		}
		if w.stdout.Len() > 0 {
			t.Errorf("status %s: standard output %q", test.line, &w.stdout)
		}
	}
}

// A server that is being restarted is waited for; wrong settings are told at once.
func TestStatusIsWatched(t *testing.T) {
	for _, tt := range []struct {
		flags       string
		page, again string // a part of the first page; what the pages after it begin with
	}{
		{"", "Client ID                        Remote Address", "\nQuerying server status."},
		{" --output json", `{"info":{"version":"0.8.9",`, `{"info":`},
	} {
		t.Run(tt.flags, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var asked atomic.Int64
			addr, _ := statusServer(t, func(w http.ResponseWriter, r *http.Request) {
				switch asked.Add(1) {
				case 2:
					w.WriteHeader(http.StatusBadGateway)
				case 4:
					cancel()
				default:
					answerStatus(w, r)
				}
			})
			w := newWorld(t)
			code := Execute(ctx, w.deps(), strings.Fields("status --url wss://"+addr+" --token-file "+w.dir+"/token --watch --interval 100ms"+tt.flags))
			out := w.stdout.String()
			if code != 0 || !strings.Contains(out, tt.page) || strings.Count(out, tt.page) != 2 || strings.Contains(out, "\x1b") {
				t.Errorf("code %d, printed\n%s", code, out)
			}
			if i := strings.Index(out, tt.again); tt.flags == "" && i < len(tt.page) || i < 0 {
				t.Errorf("the second page does not begin with %q:\n%s", tt.again, out)
			}
			if got, want := w.stderr.String(), "culvert: the server at "+addr+" answers 502 Bad Gateway\n"; got != want {
				t.Errorf("standard error %q, want %q", got, want)
			}
		})
	}
	w := newWorld(t)
	if code := w.run(t, "status --url wss://127.0.0.1:1 --token-file DIR/token --watch"); code != 1 || w.stdout.Len() > 0 {
		t.Errorf("no server at the beginning: code %d\n%s", code, &w.stdout)
	}
	if code := w.run(t, "status --url wss://h --token-file DIR/token --watch --interval 1ms"); code != 2 || !strings.Contains(w.stderr.String(), "--interval: 1ms is too short; give 100ms or more") {
		t.Errorf("a short interval: code %d\n%s", code, &w.stderr)
	}
}

func TestAPageInThePlaceOfTheOneBefore(t *testing.T) {
	if got, want := string(overwriting([]byte("a\nb\n"))), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
