package cli

import (
	"strings"
	"testing"
)

// A shell that completes is told commands, flags, all their values (the shell picks), and of members what the server of the line has; nothing where nothing
// can be known.
func TestTheShellIsTold(t *testing.T) {
	const state = `{"upstreams":[{"name":"app","members":[{"name":"web1"},{"name":"10.0.0.1:80"}]},{"name":"db","members":[{"name":"a"}]}]}`
	addr, _ := apiServer(t, 200, state)
	for _, tt := range []struct{ line, want string }{
		{"sta", "status"},
		{"member we", "weight"},
		{"server --control-p", "--control-port"},
		{"status --output j", "text json"},
		{"member drain --url wss://ADDR --token-file DIR/token app/", "app/web1 app/10.0.0.1:80"},
		{"member weight --url wss://ADDR --token-file DIR/token d", "db/a"},
		{"member weight --url wss://ADDR --token-file DIR/token db/a 1", ""},
		{"member list --url wss://ADDR --token-file DIR/token a", "app"},
		{"member ready --url wss://127.0.0.1:1 --token-file DIR/token a", ""},
		{"member ready a", ""},
	} {
		w := newWorld(t)
		if code := w.run(t, "__completeNoDesc "+strings.ReplaceAll(tt.line, "ADDR", addr)); code != 0 {
			t.Errorf("%s: code %d\n%s", tt.line, code, &w.stderr)
		}
		words, directive, _ := strings.Cut(w.stdout.String(), ":4\n") // no file names
		if got := strings.Join(strings.Fields(words), " "); got != tt.want || directive != "" {
			t.Errorf("%s: completed by %q, want %q\n%s", tt.line, got, tt.want, &w.stdout)
		}
	}
}
