//go:build linux

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGettingStartedRunsAsPasted runs the shell blocks of docs/getting-started.md, one after the other in one shell, as
// a reader pastes them. It leaves out the build, which has been done.
func TestGettingStartedRunsAsPasted(t *testing.T) {
	need(t, "curl")
	for _, port := range []string{"2222", "8000", "8080", "8123"} {
		l, err := net.Listen("tcp", net.JoinHostPort("", port))
		if err != nil {
			t.Skipf("port %s of the page is taken: %v", port, err)
		}
		l.Close()
	}
	page, err := os.ReadFile("../../docs/getting-started.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlocks(string(page))
	if len(blocks) < 5 || !strings.Contains(blocks[0], "go build") {
		t.Fatalf("the page has %d blocks of shell, and the build must be the first", len(blocks))
	}
	dir := t.TempDir()
	if err := os.Symlink(culvert(), filepath.Join(dir, "culvert")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-e", "-c", "export PATH=\"$PWD:$PATH\"\n"+strings.Join(blocks[1:], "\n"))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "hello from behind the tunnel"); n != 4 {
		t.Errorf("the site was seen %d times, want 4", n)
	}
	for _, want := range []string{"Client ID", "2222=127.0.0.1:8080", `http_dataplane_requests_total{code="200",host="*",method="GET"}`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// shellBlocks are the contents of the fenced blocks of a page whose language is sh.
func shellBlocks(page string) []string {
	var blocks []string
	for {
		_, rest, ok := strings.Cut(page, "\n```sh\n")
		if !ok {
			return blocks
		}
		block, rest, _ := strings.Cut(rest, "```\n")
		blocks = append(blocks, block)
		page = rest
	}
}
