package fileserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canary stands in every file that must never be served.
const canary = "CANARY"

// newHandler serves a folder that it makes of files (a name that ends in a slash is a folder). Outside of it, next to
// it, lies outside.txt with the canary.
func newHandler(t testing.TB, cfg Config, files map[string]string) (http.Handler, string) {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = filepath.Join(t.TempDir(), "www")
	}
	if err := os.MkdirAll(cfg.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		write(t, filepath.Join(cfg.Root, filepath.FromSlash(name)), content, strings.HasSuffix(name, "/"))
	}
	write(t, filepath.Join(filepath.Dir(cfg.Root), "outside.txt"), canary, false)
	h, err := Handler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h, cfg.Root
}

func write(t testing.TB, name, content string, folder bool) {
	t.Helper()
	dir := filepath.Dir(name)
	if folder {
		dir = name
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if folder {
		return
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start runs a real server for the handler and returns its address.
func start(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// answer is what came back over the wire.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// ask sends a request line as it is written, which no HTTP client would do with a hostile one.
func ask(t *testing.T, addr, method, target string, headers ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: files.example", "Connection: close"}, headers...)
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func TestHandlerServesFiles(t *testing.T) {
	h, _ := newHandler(t, Config{}, map[string]string{
		"uname.txt": "Linux\n", "index.html": "<h1>home</h1>", "docs/index.html": "<h1>docs</h1>", "docs/a.css": "a{}",
		"empty/": "", "two words & more.txt": "2", "a:b.txt": "colon", "café.txt": "é", "per%cent.txt": "%", "a..b": "dots",
		"app.js": "1", "data.json": "{}", "x.svg": "<svg/>", "x.wasm": "\x00asm", "f.woff2": "w", "noext": "plain words", "README.MD": "# x",
	})
	addr := start(t, h)
	for name, tt := range map[string]struct {
		target string
		status int
		body   string
		kind   string
	}{
		"a file":                   {"/uname.txt", 200, "Linux\n", "text/plain; charset=utf-8"},
		"with a query":             {"/uname.txt?v=1", 200, "Linux\n", "text/plain; charset=utf-8"},
		"with slashes too many":    {"//uname.txt", 200, "Linux\n", "text/plain; charset=utf-8"},
		"by absolute URL":          {"http://files.example/uname.txt", 200, "Linux\n", "text/plain; charset=utf-8"},
		"host alone":               {"http://files.example", 200, "<h1>home</h1>", "text/html; charset=utf-8"},
		"index of the root":        {"/", 200, "<h1>home</h1>", "text/html; charset=utf-8"},
		"index by name":            {"/index.html", 200, "<h1>home</h1>", "text/html; charset=utf-8"},
		"index of a folder":        {"/docs/", 200, "<h1>docs</h1>", "text/html; charset=utf-8"},
		"in a folder":              {"/docs/a.css", 200, "a{}", "text/css; charset=utf-8"},
		"spaces and ampersand":     {"/two%20words%20&%20more.txt", 200, "2", "text/plain; charset=utf-8"},
		"colon":                    {"/a:b.txt", 200, "colon", "text/plain; charset=utf-8"},
		"another script":           {"/caf%C3%A9.txt", 200, "é", "text/plain; charset=utf-8"},
		"per cent":                 {"/per%25cent.txt", 200, "%", "text/plain; charset=utf-8"},
		"two dots within a name":   {"/a..b", 200, "dots", "text/plain; charset=utf-8"},
		"script":                   {"/app.js", 200, "1", "text/javascript; charset=utf-8"},
		"JSON":                     {"/data.json", 200, "{}", "application/json"},
		"picture":                  {"/x.svg", 200, "<svg/>", "image/svg+xml"},
		"WebAssembly":              {"/x.wasm", 200, "\x00asm", "application/wasm"},
		"font":                     {"/f.woff2", 200, "w", "font/woff2"},
		"no extension":             {"/noext", 200, "plain words", "text/plain; charset=utf-8"},
		"extension in capitals":    {"/README.MD", 200, "# x", "text/markdown; charset=utf-8"},
		"none such":                {"/uptime.txt", 404, "unable to find requested file\n", "text/plain; charset=utf-8"},
		"a file as folder":         {"/uname.txt/", 404, "unable to find requested file\n", "text/plain; charset=utf-8"},
		"below a file":             {"/uname.txt/x", 404, "unable to find requested file\n", "text/plain; charset=utf-8"},
		"folder without index":     {"/empty/", 404, "unable to find requested file\n", "text/plain; charset=utf-8"},
		"the same without slash":   {"/empty", 404, "unable to find requested file\n", "text/plain; charset=utf-8"},
		"a name of 300 characters": {"/" + strings.Repeat("a", 300), 404, "unable to find requested file\n", "text/plain; charset=utf-8"},
		"a path of 60,000":         {"/" + strings.Repeat("a/", 30_000), 404, "unable to find requested file\n", "text/plain; charset=utf-8"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ask(t, addr, "GET", tt.target)
			if got.Status != tt.status || got.Body != tt.body || got.Header.Get("Content-Type") != tt.kind {
				t.Errorf("got %d %q %q, want %d %q %q", got.Status, got.Header.Get("Content-Type"), got.Body, tt.status, tt.kind, tt.body)
			}
			if got.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("not marked nosniff")
			}
			if want := fmt.Sprint(len(tt.body)); got.Header.Get("Content-Length") != want {
				t.Errorf("Content-Length %q, want %s", got.Header.Get("Content-Length"), want)
			}
			head := ask(t, addr, "HEAD", tt.target)
			if head.Status != tt.status || head.Body != "" || head.Header.Get("Content-Type") != tt.kind {
				t.Errorf("HEAD: got %d %q %q", head.Status, head.Header.Get("Content-Type"), head.Body)
			}
		})
	}
}

// The answer for a missing file is the one that the guide of 2021 shows.
func TestSeed001NotFoundIsAsPrinted(t *testing.T) {
	h, _ := newHandler(t, Config{AllowBrowsing: true}, map[string]string{"uname.txt": "x"})
	got := ask(t, start(t, h), "GET", "/uptime.txt")
	got.Header.Del("Date")
	got.Header.Del("Connection")
	want := "404 map[Content-Length:[30] Content-Type:[text/plain; charset=utf-8] X-Content-Type-Options:[nosniff]] " +
		"unable to find requested file\n"
	if s := fmt.Sprint(got.Status, " ", got.Header, " ", got.Body); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestHandlerAllowsOnlyReading(t *testing.T) {
	h, root := newHandler(t, Config{AllowBrowsing: true}, map[string]string{"a.txt": "a"})
	addr := start(t, h)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get"} {
		got := ask(t, addr, method, "/a.txt")
		if got.Status != http.StatusMethodNotAllowed || got.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %d, Allow %q", method, got.Status, got.Header.Get("Allow"))
		}
	}
	if data, err := os.ReadFile(filepath.Join(root, "a.txt")); err != nil || string(data) != "a" {
		t.Errorf("the file is %q: %v", data, err)
	}
}

func TestHandlerAnswersConditionsAndRanges(t *testing.T) {
	h, root := newHandler(t, Config{}, map[string]string{"a.txt": "0123456789", "old.txt": "old"})
	addr := start(t, h)
	for name, at := range map[string]time.Time{"a.txt": time.Date(2021, 8, 13, 11, 26, 17, 123456789, time.UTC), "old.txt": time.Unix(1, 0)} {
		if err := os.Chtimes(filepath.Join(root, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	first := ask(t, addr, "GET", "/a.txt")
	modified, tag := first.Header.Get("Last-Modified"), first.Header.Get("ETag")
	if modified != "Fri, 13 Aug 2021 11:26:17 GMT" || tag == "" {
		t.Fatalf("Last-Modified %q, ETag %q", modified, tag)
	}
	if got := ask(t, addr, "GET", "/old.txt").Header.Get("ETag"); got != "" {
		t.Errorf("ETag %s of a file without a true time", got)
	}
	for name, tt := range map[string]struct {
		headers []string
		status  int
		body    string
	}{
		"not modified since":       {[]string{"If-Modified-Since: " + modified}, 304, ""},
		"modified since":           {[]string{"If-Modified-Since: Fri, 13 Aug 2021 11:26:16 GMT"}, 200, "0123456789"},
		"same tag":                 {[]string{"If-None-Match: " + tag}, 304, ""},
		"other tag":                {[]string{`If-None-Match: "x"`, "If-Modified-Since: " + modified}, 200, "0123456789"},
		"wants an unmodified one":  {[]string{"If-Unmodified-Since: Fri, 13 Aug 2021 11:26:16 GMT"}, 412, ""},
		"a range":                  {[]string{"Range: bytes=2-4"}, 206, "234"},
		"the last bytes":           {[]string{"Range: bytes=-3"}, 206, "789"},
		"from a place on":          {[]string{"Range: bytes=7-"}, 206, "789"},
		"beyond the end":           {[]string{"Range: bytes=10-"}, 416, "invalid range: failed to overlap\n"},
		"nonsense":                 {[]string{"Range: bytes=x"}, 416, "invalid range\n"},
		"a range of this version":  {[]string{"Range: bytes=0-0", "If-Range: " + tag}, 206, "0"},
		"a range of another":       {[]string{"Range: bytes=0-0", `If-Range: "x"`}, 200, "0123456789"},
		"ranges that are too many": {[]string{"Range: bytes=" + strings.Repeat("0-,", 1000) + "0-"}, 200, "0123456789"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ask(t, addr, "GET", "/a.txt", tt.headers...)
			if got.Status != tt.status || got.Body != tt.body {
				t.Errorf("got %d %q, want %d %q", got.Status, got.Body, tt.status, tt.body)
			}
		})
	}
}

func TestETagTellsVersionsOfOneSecondApart(t *testing.T) {
	h, root := newHandler(t, Config{}, map[string]string{"a.txt": "1"})
	addr := start(t, h)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var tags []string
	for i, content := range []string{"1", "2"} {
		write(t, filepath.Join(root, "a.txt"), content, false)
		mtime := at.Add(time.Duration(i) * time.Millisecond)
		if err := os.Chtimes(filepath.Join(root, "a.txt"), mtime, mtime); err != nil {
			t.Fatal(err)
		}
		tags = append(tags, ask(t, addr, "GET", "/a.txt").Header.Get("ETag"))
	}
	if tags[0] == tags[1] {
		t.Errorf("both have %s", tags[0])
	}
}

// C19: the redirect to a folder stays where the request was, whatever the path looks like.
func TestC19RedirectStaysOnTheHost(t *testing.T) {
	h, _ := newHandler(t, Config{AllowBrowsing: true}, map[string]string{
		"docs/": "", "evil.test/": "", "javascript:alert(1)/": "", "a b/c?d/": "", "has/index.html": "x",
	})
	addr := start(t, h)
	for target, want := range map[string]string{
		"/docs":                     "./docs/",
		"/docs?q=1&r=%2F":           "./docs/?q=1&r=%2F",
		"/has":                      "./has/",
		"//evil.test":               "./evil.test/",
		"///evil.test":              "./evil.test/",
		"http://evil.test/docs":     "./docs/",
		"//evil.test//docs/":        "", // no such folder
		"/%2Fevil.test":             "./evil.test/",
		"/%5Cevil.test":             "",
		"/javascript:alert(1)":      "./javascript:alert%281%29/",
		"/a%20b/c%3Fd":              "./c%3Fd/",
		"/docs?x=%0d%0aSet-Cookie:": "./docs/?x=%0d%0aSet-Cookie:",
	} {
		t.Run(target, func(t *testing.T) {
			got := ask(t, addr, "GET", target, "X-Forwarded-Host: evil.test", "X-Forwarded-Prefix: //evil.test")
			if want == "" {
				if got.Status != 404 {
					t.Errorf("got %d %q, want 404", got.Status, got.Header)
				}
				return
			}
			location := got.Header.Get("Location")
			if got.Status != http.StatusMovedPermanently || location != want {
				t.Fatalf("got %d to %q, want 301 to %q", got.Status, location, want)
			}
			base, err := url.Parse("http://files.example/")
			if err != nil {
				t.Fatal(err)
			}
			to, err := base.Parse(location)
			if err != nil || to.Host != "files.example" || to.Scheme != "http" {
				t.Errorf("leads to %s: %v", to, err)
			}
		})
	}
}

func TestHandlerFollowsARootThatIsReplaced(t *testing.T) {
	h, root := newHandler(t, Config{}, map[string]string{"a.txt": "first"})
	addr := start(t, h)
	if got := ask(t, addr, "GET", "/a.txt"); got.Body != "first" {
		t.Fatalf("got %q", got.Body)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, addr, "GET", "/a.txt"); got.Status != 500 || strings.Contains(got.Body, root) {
		t.Errorf("without a root: got %d %q, want 500 without its path", got.Status, got.Body)
	}
	write(t, filepath.Join(root, "a.txt"), "second", false)
	if got := ask(t, addr, "GET", "/a.txt"); got.Body != "second" {
		t.Errorf("got %q after the folder was built anew", got.Body)
	}
}

// A fault of this machine is logged, but not once for each request of a flood, and nothing of it is told to visitors.
func TestFaultsAreLoggedNowAndThen(t *testing.T) {
	var log strings.Builder
	h, root := newHandler(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	for range 50 {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/"+strings.Repeat("a", 10_000), nil)
		h.(*handler).refuse(w, r, &os.PathError{Op: "openat", Path: root, Err: syscall.EMFILE})
		if w.Code != 500 || w.Body.String() != "unable to read requested file\n" {
			t.Fatalf("got %d %q", w.Code, w.Body)
		}
	}
	lines := strings.Count(log.String(), "\n")
	if lines == 0 || lines > 2 || log.Len() > 1000*lines {
		t.Errorf("%d lines of %d bytes:\n%.2000s", lines, log.Len(), log.String())
	}
}

func TestShortNamesOfWindows(t *testing.T) {
	for name, want := range map[string]bool{
		"GIT~1": true, "ENV~1.LOC": true, "HTPASS~12": true, "backup~": false, "~home": false, "a.txt": false, "~1": true,
	} {
		if got := shortName(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestHandlerServesARelativeRootWhateverTheWorkingFolderBecomes(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "www", "a.txt"), "a", false)
	t.Chdir(dir)
	h, err := Handler(Config{Root: "./www"})
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if got := ask(t, start(t, h), "GET", "/a.txt"); got.Body != "a" {
		t.Errorf("got %d %q", got.Status, got.Body)
	}
}

func TestHandlerRefusesARoot(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "", false)
	for _, root := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "file")} {
		_, err := Handler(Config{Root: root})
		if err == nil || !strings.Contains(err.Error(), "web root") || !strings.Contains(err.Error(), root) {
			t.Errorf("%s: got %v, want an error that names it", root, err)
		}
	}
}

func TestHandlerAsksForThePassword(t *testing.T) {
	files := map[string]string{"a.txt": canary}
	for name, tt := range map[string]struct {
		auth   func(user, password string) bool
		header string
		status int
	}{
		"nobody asked":          {nil, "", 200},
		"nobody came":           {BasicAuth("admin", "secret"), "", 401},
		"right":                 {BasicAuth("admin", "secret"), "admin:secret", 200},
		"wrong password":        {BasicAuth("admin", "secret"), "admin:Secret", 401},
		"longer password":       {BasicAuth("admin", "secret"), "admin:secretsecret", 401},
		"no password":           {BasicAuth("admin", "secret"), "admin:", 401},
		"wrong user":            {BasicAuth("admin", "secret"), "root:secret", 401},
		"swapped":               {BasicAuth("admin", "secret"), "secret:admin", 401},
		"password with colons":  {BasicAuth("admin", "a:b:c"), "admin:a:b:c", 200},
		"password lost":         {BasicAuth("admin", ""), "admin:", 401},
		"both lost":             {BasicAuth("", ""), ":", 401},
		"user left empty":       {BasicAuth("", "secret"), ":secret", 200},
		"another script":        {BasicAuth("jürgen", "пароль"), "jürgen:пароль", 200},
		"everything in one":     {BasicAuth("ab", "c"), "a:bc", 401},
		"user with nothing":     {BasicAuth("admin", "secret"), "admin", 401},
		"a header of nonsense":  {BasicAuth("admin", "secret"), "\x00", 401},
		"somebody else decides": {func(u, _ string) bool { return u == "x" }, "x:", 200},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := newHandler(t, Config{Authorize: tt.auth}, files)
			r := httptest.NewRequest(http.MethodGet, "/a.txt", nil)
			if user, password, ok := strings.Cut(tt.header, ":"); ok {
				r.SetBasicAuth(user, password)
			} else if tt.header != "" {
				r.Header.Set("Authorization", "Basic "+tt.header)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("got %d, want %d", w.Code, tt.status)
			}
			if w.Code == 401 && (strings.Contains(w.Body.String(), canary) || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic realm=")) {
				t.Errorf("got %q, %q", w.Header(), w.Body)
			}
		})
	}
}

// S9: without the password nothing is told, not even which files or methods there are.
func TestS9EveryPathAsksForThePassword(t *testing.T) {
	h, _ := newHandler(t, Config{AllowBrowsing: true, Authorize: BasicAuth("admin", "secret")}, map[string]string{"a.txt": canary, "d/": ""})
	addr := start(t, h)
	for _, target := range []string{"/", "/a.txt", "/none", "/d", "/d/", "/.env", "/../x", "/%00", "//", "http://h", "*"} {
		method := "GET"
		if target == "*" {
			method = "OPTIONS"
		}
		got := ask(t, addr, method, target)
		if got.Status != 401 && target != "*" || strings.Contains(got.Body, canary) {
			t.Errorf("%s: got %d %q", target, got.Status, got.Body)
		}
	}
}

func TestHandlerLeavesNoDescriptorOpen(t *testing.T) {
	const table = "/proc/self/fd"
	if _, err := os.Stat(table); err != nil {
		t.Skip("no " + table)
	}
	h, _ := newHandler(t, Config{AllowBrowsing: true}, map[string]string{
		"a.txt": "a", "with/index.html": "x", "without/b.txt": "b", ".env": "x",
	})
	count := func() int {
		entries, err := os.ReadDir(table)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for range 20 {
		for _, target := range []string{"/a.txt", "/a.txt/", "/none", "/with", "/with/", "/without", "/without/", "/.env", "/"} {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, target, nil))
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func BenchmarkHandler(b *testing.B) {
	h, _ := newHandler(b, Config{}, map[string]string{"a/b/c.txt": strings.Repeat("x", 1<<10)})
	r := httptest.NewRequest(http.MethodGet, "/a/b/c.txt", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func BenchmarkParsePath(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := parsePath("/a/b/c.txt", false); !ok {
			b.Fatal("refused")
		}
	}
}
