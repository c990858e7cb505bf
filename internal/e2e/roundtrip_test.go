//go:build linux

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"strings"
	"testing"
)

// What clients of Debian's servers do with one, directly or through a tunnel.

func redisRoundTrip(t *testing.T, addr string) {
	t.Helper()
	host, p, _ := net.SplitHostPort(addr)
	cli := func(stdin string, args ...string) string {
		t.Helper()
		argv := append([]string{"redis-cli", "-h", host, "-p", p}, args...)
		if stdin == "" {
			return must(t, program{argv: argv})
		}
		file := write(t, t.TempDir(), "stdin", stdin, 0o600)
		return must(t, program{argv: append([]string{"sh", "-c", `exec "$@" < "$0"`, file}, argv...)})
	}
	value := strings.Repeat("culvert ", 1<<17) // 1 MiB
	if got := cli(value, "-x", "SET", "big"); got != "OK\n" {
		t.Fatalf("SET: got %q", got)
	}
	if got := cli("", "GET", "big"); got != value+"\n" {
		t.Errorf("GET: got %d bytes, want %d", len(got), len(value)+1)
	}
	out := must(t, program{argv: []string{"redis-benchmark", "-h", host, "-p", p, "-q", "-n", "5000", "-c", "20", "-t", "set,get,lrange_100"}})
	t.Logf("redis-benchmark: %s", strings.ReplaceAll(strings.TrimSpace(out[strings.LastIndexByte(out, '\r')+1:]), "\n", "; "))
}

func postgresRoundTrip(t *testing.T, addr string) {
	t.Helper()
	host, p, _ := net.SplitHostPort(addr)
	db := "host=" + host + " port=" + p + " user=culvert dbname=postgres connect_timeout=10"
	sql := func(query string) string {
		t.Helper()
		return must(t, program{argv: []string{"psql", db, "--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "-v", "ON_ERROR_STOP=1", "-c", query}})
	}
	sql(`DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT i, md5(i::text) AS m FROM generate_series(1, 100000) AS i`)
	want := strings.TrimSpace(sql(`SELECT md5(string_agg(m, '' ORDER BY i)) FROM t`))
	rows := sql(`COPY (SELECT m FROM t ORDER BY i) TO STDOUT`) // 3.3 MB to the client
	if lines := strings.Count(rows, "\n"); lines != 100000 {
		t.Errorf("COPY gave %d rows", lines)
	}
	file := write(t, t.TempDir(), "rows", rows, 0o600) // and back
	got := must(t, program{argv: []string{
		"psql", db, "--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "-v", "ON_ERROR_STOP=1",
		"-c", "CREATE TEMP TABLE b(m text, i serial)", "-c", `\copy b(m) FROM '` + file + `'`,
		"-c", `SELECT md5(string_agg(m, '' ORDER BY i)) FROM b`,
	}})
	if strings.TrimSpace(got) != want {
		t.Errorf("rows came back as %q, want %q", strings.TrimSpace(got), want)
	}
}

// sshRoundTrip logs in at addr, runs a command and sends 8 MiB there and back.
func sshRoundTrip(t *testing.T, s sshd, addr string) {
	t.Helper()
	host, options := s.login(t, addr)
	ssh := func(stdin string, command ...string) string {
		t.Helper()
		argv := append(append([]string{"ssh"}, append(options, host)...), command...)
		return must(t, program{argv: append([]string{"sh", "-c", `exec "$@" < "$0"`, stdin}, argv...)})
	}
	if got := ssh("/dev/null", "echo hello; exit 0"); got != "hello\n" {
		t.Errorf("echo: got %q", got)
	}
	content := strings.Repeat("0123456789abcdef", 1<<19) // 8 MiB
	file := write(t, t.TempDir(), "content", content, 0o600)
	back := ssh(file, "cat")
	want, got := sha256.Sum256([]byte(content)), sha256.Sum256([]byte(back))
	if want != got {
		t.Errorf("%d bytes came back as %d bytes with another hash", len(content), len(back))
	}
	remote := ssh(file, "sha256sum")
	if hash, _, _ := strings.Cut(remote, " "); hash != hex.EncodeToString(want[:]) {
		t.Errorf("the other side read other bytes: %q", remote)
	}
}
