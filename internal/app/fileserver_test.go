package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"culvert/internal/auth"
	"culvert/internal/config"
)

func TestFileServerDoesAsItIsSet(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"page.txt", ".hidden"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("content\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	none := func(*config.Fileserver) {}
	protected := func(cfg *config.Fileserver) { cfg.BasicAuthPassword = auth.NewSecret("a password") }
	for _, tt := range []struct {
		name           string
		set            func(*config.Fileserver)
		path, password string
		want           int // 0: no answer
	}{
		{"a file", none, "/page.txt", "", 200},
		{"a hidden file", none, "/.hidden", "", 404},
		{"a hidden file that is wanted", func(cfg *config.Fileserver) { cfg.Hidden = true }, "/.hidden", "", 200},
		{"a folder", none, "/", "", 404},
		{"a folder to browse", func(cfg *config.Fileserver) { cfg.AllowBrowsing = true }, "/", "", 200},
		{"no password", protected, "/page.txt", "", 401},
		{"another password", protected, "/page.txt", "another", 401},
		{"the password", protected, "/page.txt", "a password", 200},
		{"a source that is not allowed", func(cfg *config.Fileserver) { cfg.AllowIPs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }, "/page.txt", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var cfg config.Fileserver
			config.Describe(&cfg, "")
			cfg.Webroot, cfg.Port = root, freePort(t)
			tt.set(&cfg)
			r := start(func(ctx context.Context) error { return RunFileserver(ctx, cfg, Version{}, discard) })
			defer func() {
				if err := r.stop(); err != nil {
					t.Error(err)
				}
			}()
			addr := fmt.Sprintf("127.0.0.1:%d", cfg.Port)
			await(t, "the port", func() bool {
				c, err := net.Dial("tcp", addr)
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.password != "" {
				req.SetBasicAuth("admin", tt.password)
			}
			got := 0
			transport := &http.Transport{DisableKeepAlives: true}
			if res, err := transport.RoundTrip(req); err == nil {
				res.Body.Close()
				got = res.StatusCode
			}
			if got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
