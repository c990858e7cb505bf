//go:build unix

package fileserver

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// hostileTree is a folder with everything in it that must not be served, for C17 and T26. What is secret contains the
// canary.
func hostileTree(t testing.TB) Config {
	t.Helper()
	base := t.TempDir()
	root := filepath.Join(base, "www")
	for name, content := range map[string]string{
		"www/ok.txt": "ok", "www/sub/ok.txt": "ok",
		"www/.env": canary, "www/.git/config": canary, "www/sub/.htpasswd": canary, "www/.well/ok.txt": canary,
		"www/...": canary, "www/..x": canary,
		`www/back\slash.txt`: canary,
		"outside.txt":        canary, "out/secret.txt": canary, "www-secret/secret.txt": canary, "out/index.html": canary,
		"etc/passwd": canary,
	} {
		write(t, filepath.Join(base, name), content, false)
	}
	for link, target := range map[string]string{
		"file": "../outside.txt", "dir": "../out", "absolute": filepath.Join(base, "outside.txt"), "root": "/",
		"parent": "..", "proc": "/proc/self/environ", "sub/up": "../../outside.txt", "chain": "file", "loop": "loop",
		"dangling": "nowhere", "inout": "../www/../outside.txt", "sub/index.html": "../../out/index.html",
		"device": "/dev/zero",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	return Config{Root: root}
}

func TestC17CanaryOutsideTheRootIsNeverServed(t *testing.T) {
	targets := []string{
		// links
		"/file", "/file/", "/dir", "/dir/", "/dir/secret.txt", "/dir//secret.txt", "/dir/.", "/dir/./secret.txt", "/absolute",
		"/root", "/root/", "/root/etc/passwd", "/parent", "/parent/", "/parent/outside.txt", "/parent/www/ok.txt", "/proc",
		"/sub/up", "/sub/up/", "/chain", "/chain/", "/loop", "/loop/", "/dangling", "/inout", "/sub/", "/sub", "/device", "/device/",
		// dot segments in every spelling
		"/../outside.txt", "/..%2foutside.txt", "/..%2Foutside.txt", "/%2e%2e/outside.txt", "/%2e%2e%2foutside.txt",
		"/.%2e/outside.txt", "/%2e./outside.txt", "/sub/../../outside.txt", "/sub/..%2f..%2foutside.txt", "/sub/../ok.txt/../../outside.txt",
		"/%252e%252e%252foutside.txt", "/..;/outside.txt", "/....//outside.txt", "/.../outside.txt", "//../outside.txt",
		"/..", "/../", "/..%00/", "/..-secret/secret.txt", "/../www-secret/secret.txt", "/%c0%ae%c0%ae/outside.txt", "/%ef%bc%8e%ef%bc%8e/outside.txt",
		"http://x/../outside.txt",
		// the other slash
		"/..%5coutside.txt", "/%5c..%5coutside.txt", "/back%5cslash.txt", "/sub%5cok.txt", `/..\outside.txt`, `/sub\..\..\outside.txt`,
		// NUL and other oddities
		"/%00", "/ok.txt%00", "/ok.txt%00.html", "/%00/../outside.txt", "/outside.txt", "/c:/outside.txt", "/ok.txt::$DATA", "/%ff", "/%0a", "/~root",
		// names that begin with a dot
		"/.env", "/.env/", "/%2eenv", "//.env", "/.git", "/.git/", "/.git/config", "/.git//config", "/%2egit/config", "/sub/.htpasswd",
		"/sub//.htpasswd", "/.well/ok.txt", "/...", "/..x", "/.",
		// what is no file
		"/fifo", "/fifo/",
	}
	for _, browsing := range []bool{false, true} {
		cfg := hostileTree(t)
		cfg.AllowBrowsing = browsing
		h, err := Handler(cfg)
		if err != nil {
			t.Fatal(err)
		}
		addr := start(t, h)
		for _, target := range targets {
			got := ask(t, addr, "GET", target)
			if strings.Contains(got.Body, canary) {
				t.Errorf("browsing %v: GET %s serves the canary", browsing, target)
			}
			listed := browsing && (target == "/sub/" || target == "/sub")
			if got.Status != 404 && got.Status != 400 && !listed {
				t.Errorf("browsing %v: GET %s: got %d %q, want 404", browsing, target, got.Status, got.Body)
			}
			if got.Status == 404 && got.Body != "unable to find requested file\n" {
				t.Errorf("browsing %v: GET %s: got %q: the answer tells them apart", browsing, target, got.Body)
			}
		}
		if got := ask(t, addr, "GET", "/sub/ok.txt"); got.Body != "ok" {
			t.Errorf("got %d %q for a good file", got.Status, got.Body)
		}
	}
}

// With hidden names served, dot segments and links out still lead nowhere.
func TestC17HiddenNamesOnRequestOnly(t *testing.T) {
	cfg := hostileTree(t)
	cfg.Hidden, cfg.AllowBrowsing = true, true
	h, err := Handler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr := start(t, h)
	for target, status := range map[string]int{
		"/.env": 200, "/.git/config": 200, "/.git/": 200, "/...": 200, "/..x": 200,
		"/.": 404, "/..": 404, "/./ok.txt": 404, "/../outside.txt": 404, "/.git/../.env": 404, "/..%2foutside.txt": 404, "/file": 404,
	} {
		if got := ask(t, addr, "GET", target); got.Status != status {
			t.Errorf("%s: got %d, want %d", target, got.Status, status)
		}
	}
}

// Links that stay within the folder are followed, as in the volumes that Kubernetes mounts.
func TestLinksWithinTheRootAreFollowed(t *testing.T) {
	h, root := newHandler(t, Config{}, map[string]string{"..2026_01_01/index.html": "mounted", "a/b.txt": "b"})
	for link, target := range map[string]string{"..data": "..2026_01_01", "index.html": "..data/index.html", "c": "a", "a/d.txt": "../a/b.txt"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	addr := start(t, h)
	for target, want := range map[string]string{"/": "mounted", "/index.html": "mounted", "/c/b.txt": "b", "/a/d.txt": "b"} {
		if got := ask(t, addr, "GET", target); got.Body != want {
			t.Errorf("%s: got %d %q, want %q", target, got.Status, got.Body, want)
		}
	}
	for _, target := range []string{"/..data/index.html", "/..2026_01_01/index.html"} {
		if got := ask(t, addr, "GET", target); got.Status != 404 {
			t.Errorf("%s: got %d %q, want 404", target, got.Status, got.Body)
		}
	}
}

// C17: devices are not opened, not even within the root.
func TestC17DevicesAreNotServed(t *testing.T) {
	for _, device := range []string{"zero", "null", "random", "tty"} {
		if _, err := os.Stat("/dev/" + device); err != nil {
			t.Skip("no /dev/" + device)
		}
	}
	h, err := Handler(Config{Root: "/dev", AllowBrowsing: true})
	if err != nil {
		t.Fatal(err)
	}
	addr := start(t, h)
	for _, target := range []string{"/zero", "/null", "/random", "/tty", "/stdin", "/fd/0"} {
		if got := ask(t, addr, "GET", target); got.Status != 404 {
			t.Errorf("%s: got %d, want 404", target, got.Status)
		}
	}
	if got := ask(t, addr, "GET", "/"); got.Status != 200 || strings.Contains(got.Body, ">zero<") {
		t.Errorf("got %d, the listing offers devices:\n%s", got.Status, got.Body)
	}
}

func TestC17SocketsAreNotServed(t *testing.T) {
	dir, err := os.MkdirTemp("", "s") // the path of a socket has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h, err := Handler(Config{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, start(t, h), "GET", "/sock"); got.Status != 404 {
		t.Errorf("got %d, want 404", got.Status)
	}
}

// C17: while someone with access to the folder swaps names between what may be served and links out of it as fast as
// he can, no request ever gets the canary, and none waits for the writer of what was a file when it looked. Opening by
// path after looking fails this test in a moment, and so does opening without nonblock.
func TestC17SwapRace(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "www")
	for name, content := range map[string]string{
		"www/x": "inside", "www/in/secret.txt": "inside", "www/in/index.html": "inside",
		"out/secret.txt": canary, "out/index.html": canary, "outside.txt": canary,
	} {
		write(t, filepath.Join(base, name), content, false)
	}
	h, err := Handler(Config{Root: root, AllowBrowsing: true})
	if err != nil {
		t.Fatal(err)
	}

	const rounds = 10_000
	stop := make(chan struct{})
	var swappers, visitors sync.WaitGroup
	swappers.Go(func() {
		swap(t, filepath.Join(root, "file"), stop, linkTo("x"), linkTo("../outside.txt"))
	})
	swappers.Go(func() { swap(t, filepath.Join(root, "pipe"), stop, copyOf("inside"), fifo) })
	swappers.Go(func() { swap(t, filepath.Join(root, "dir"), stop, linkTo("in"), linkTo("../out")) })
	var inside atomic.Int64
	for range 2 {
		visitors.Go(func() {
			for i := range rounds {
				target := []string{"/file", "/dir/secret.txt", "/dir/", "/dir", "/pipe"}[i%5]
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
				if strings.Contains(w.Body.String(), canary) {
					t.Errorf("%s served the canary", target)
					return
				}
				switch w.Code {
				case 200:
					inside.Add(1)
				case 301, 404:
				default:
					t.Errorf("%s: got %d %q", target, w.Code, w.Body)
				}
			}
		})
	}
	served := make(chan struct{})
	go func() {
		visitors.Wait()
		close(served)
	}()
	select {
	case <-served:
	case <-time.After(time.Minute):
		t.Error("a request hangs")
	}
	close(stop)
	swappers.Wait()
	if n := inside.Load(); n == 0 || n == 2*rounds {
		t.Errorf("%d of %d answers were good: this test proves nothing", n, 2*rounds)
	}
	t.Logf("%d of %d answers were good", inside.Load(), 2*rounds)
}

// swap gives a name one face after the other, each at one blow, until stop is closed.
func swap(t *testing.T, name string, stop <-chan struct{}, faces ...func(name string) error) {
	next := name + ".next"
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if err := faces[i%len(faces)](next); err != nil {
			t.Error(err)
			return
		}
		if err := os.Rename(next, name); err != nil {
			t.Error(err)
			return
		}
	}
}

func linkTo(target string) func(string) error {
	return func(name string) error { return os.Symlink(target, name) }
}

func copyOf(content string) func(string) error {
	return func(name string) error { return os.WriteFile(name, []byte(content), 0o644) }
}

func fifo(name string) error { return syscall.Mkfifo(name, 0o644) }

func TestFaultsOfTheMachineAreNotBlamedOnThePath(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.EIO: true, syscall.ENOMEM: true,
		syscall.ENOENT: false, syscall.EACCES: false, syscall.ELOOP: false, syscall.ENAMETOOLONG: false,
	} {
		if got := isFault(&os.PathError{Op: "openat", Path: "x", Err: err}); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
	if isFault(nil) || isFault(errors.New("path escapes from parent")) {
		t.Error("no fault of the machine")
	}
}

// S3: any path at all, on a folder full of traps.
func FuzzRequestPath(f *testing.F) {
	for _, p := range []string{
		"/", "/ok.txt", "/../outside.txt", "/..%2foutside.txt", "/.env", "/dir/secret.txt", "/sub/", "/fifo", "/\x00", `/..\x`, "//", "", "*",
		"/file/", "/.git/config", "/root/etc/passwd", "/...", "/sub/../ok.txt", "/a:b", "/%2e%2e/",
	} {
		f.Add(p, false)
		f.Add(p, true)
	}
	cfg := hostileTree(f)
	handlers := map[bool]http.Handler{}
	for _, browsing := range []bool{false, true} {
		cfg.AllowBrowsing = browsing
		h, err := Handler(cfg)
		if err != nil {
			f.Fatal(err)
		}
		handlers[browsing] = h
	}
	f.Fuzz(func(t *testing.T, path string, browsing bool) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path // as decoded: every string can get here
		w := httptest.NewRecorder()
		handlers[browsing].ServeHTTP(w, r)
		if strings.Contains(w.Body.String(), canary) {
			t.Errorf("%q served the canary", path)
		}
		switch w.Code {
		case 200, 404:
		case 301:
			checkStays(t, r.URL, w.Header().Get("Location"))
		default:
			t.Errorf("%q: got %d", path, w.Code)
		}
		if name, ok := parsePath(path, false); ok {
			for segment := range strings.SplitSeq(name.file, "/") {
				if name.file != "." && (segment == "" || segment[0] == '.' || strings.ContainsAny(segment, "\\\x00")) {
					t.Errorf("%q became %q", path, name.file)
				}
			}
		}
	})
}
