package fileserver

import (
	"fmt"
	"html"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestListing(t *testing.T) {
	h, root := newHandler(t, Config{AllowBrowsing: true}, map[string]string{
		"b.txt": "12345", "a.txt": "1", "sub/c.txt": "c", ".env": canary, ".git/x": canary,
	})
	at := time.Date(2021, 8, 13, 11, 26, 17, 0, time.UTC)
	for _, name := range []string{"b.txt", "a.txt", "sub", "."} {
		if err := os.Chtimes(filepath.Join(root, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	addr := start(t, h)
	got := ask(t, addr, "GET", "/")
	const want = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>/</title>
</head>
<body>
<h1>/</h1>
<table>
<tr><td><a href="./sub/">sub/</a></td><td align="right"></td><td>2021-08-13 11:26:17</td></tr>
<tr><td><a href="./a.txt">a.txt</a></td><td align="right">1</td><td>2021-08-13 11:26:17</td></tr>
<tr><td><a href="./b.txt">b.txt</a></td><td align="right">5</td><td>2021-08-13 11:26:17</td></tr>
</table>
</body>
</html>
`
	if got.Status != 200 || got.Body != want {
		t.Errorf("got %d\n%s\nwant\n%s", got.Status, got.Body, want)
	}
	if kind := got.Header.Get("Content-Type"); kind != "text/html; charset=utf-8" {
		t.Errorf("Content-Type %q", kind)
	}
	if csp := got.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("Content-Security-Policy %q", csp)
	}
	if sub := ask(t, addr, "GET", "/sub/"); !strings.Contains(sub.Body, `<a href="../">`) || !strings.Contains(sub.Body, "<h1>/sub/</h1>") {
		t.Errorf("a folder's page lacks the way up or its name:\n%s", sub.Body)
	}
	if head := ask(t, addr, "HEAD", "/"); head.Status != 200 || head.Body != "" {
		t.Errorf("HEAD: got %d %q", head.Status, head.Body)
	}
}

// C20: names are text, whatever they are, and every link leads to the file that it names.
func TestC20ListedNamesAreNoMarkupAndCanBeFetched(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such names")
	}
	files := map[string]string{}
	for _, name := range []string{
		"<script>alert(1)<", `"onmouseover="x`, "'quoted'", "a&amp;b", "javascript:alert(1)", "a?b", "a#b", "a%2fb", "100%", "http:", "q;r,s=t+u@v$w",
		" leading", "trailing ", "new\nline", "tab\t", "\u202egnp.exe", "~tilde", "日本語", "[x]", "{x}", "^|`",
	} {
		files[name] = name
	}
	h, root := newHandler(t, Config{AllowBrowsing: true}, files)
	// Names that nobody can ask for are not listed.
	for _, name := range []string{"invalid\xff", `back\slash`} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(canary), 0o644); err != nil {
			t.Logf("%q: %v", name, err) // some file systems know UTF-8 only
		}
	}
	addr := start(t, h)
	page := ask(t, addr, "GET", "/").Body
	rows := regexp.MustCompile(`(?s)<tr><td><a href="([^"<>]*)">([^<>]*)</a></td><td align="right">`).FindAllStringSubmatch(page, -1)
	if len(rows) != len(files) {
		t.Errorf("%d rows for %d files:\n%s", len(rows), len(files), page)
	}
	base := &url.URL{Scheme: "http", Host: "files.example", Path: "/"}
	for _, row := range rows {
		link, name := html.UnescapeString(row[1]), html.UnescapeString(row[2])
		to, err := base.Parse(link)
		if err != nil {
			t.Errorf("%q: %v", link, err)
			continue
		}
		if got := ask(t, addr, "GET", to.RequestURI()); to.Host != base.Host || got.Status != 200 || got.Body != name {
			t.Errorf("%q at %s: got %d %q", name, to, got.Status, got.Body)
		}
	}
}

func TestListingOffersNoWayOut(t *testing.T) {
	h, root := newHandler(t, Config{AllowBrowsing: true}, map[string]string{"a.txt": "a"})
	for link, target := range map[string]string{"out": "../outside.txt", "abs": "/etc/passwd", "gone": "nowhere", "in": "a.txt"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Skip(err)
		}
	}
	page := ask(t, start(t, h), "GET", "/").Body
	for name, want := range map[string]bool{"in": true, "a.txt": true, "out": false, "abs": false, "gone": false} {
		if got := strings.Contains(page, `"./`+name+`"`); got != want {
			t.Errorf("%s listed: %v, want %v", name, got, want)
		}
	}
}

func TestListingIsBounded(t *testing.T) {
	files := map[string]string{}
	for i := range 12 {
		files[strconv.Itoa(i)] = ""
	}
	for limit, want := range map[int]int{11: 11, 12: 12, 13: 12} {
		h, _ := newHandler(t, Config{AllowBrowsing: true}, files)
		if got := h.(*handler).maxListed; got != 10_000 {
			t.Errorf("the limit is %d", got)
		}
		h.(*handler).maxListed = limit
		page := ask(t, start(t, h), "GET", "/").Body
		if got := strings.Count(page, "<tr>"); got != want {
			t.Errorf("limit %d: %d rows, want %d", limit, got, want)
		}
		if got := strings.Contains(page, fmt.Sprintf("Only %d names are listed", limit)); got != (limit < 12) {
			t.Errorf("limit %d: says that there are more: %v", limit, got)
		}
	}
}

func TestFoldersAreNotListedUnlessAllowed(t *testing.T) {
	h, _ := newHandler(t, Config{}, map[string]string{"sub/a.txt": "a"})
	addr := start(t, h)
	for _, target := range []string{"/", "/sub", "/sub/"} {
		if got := ask(t, addr, "GET", target); got.Status != 404 {
			t.Errorf("%s: got %d %q, want 404", target, got.Status, got.Body)
		}
	}
}

// checkStays fails unless a link or redirect from a page leads to a path on the same host.
func checkStays(t *testing.T, from *url.URL, link string) {
	t.Helper()
	base := &url.URL{Scheme: "http", Host: "files.example", Path: path.Clean("/" + from.Path)}
	to, err := base.Parse(link)
	if err != nil || to.Host != base.Host || to.Scheme != base.Scheme || to.User != nil {
		t.Errorf("%q on %q leads to %v: %v", link, from.Path, to, err)
	}
}

func FuzzHref(f *testing.F) {
	for _, name := range []string{"a", "a/", "javascript:alert(1)", "//evil", "..", "a?b#c", "%2e%2e", `"><script>`, "a b/", "\\evil", "@evil", ":"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		file, isDir := strings.CutSuffix(name, "/")
		if file == "" || !validName(file, true) {
			return
		}
		link := href(name)
		checkStays(t, &url.URL{Path: "/dir/"}, link)
		base := &url.URL{Scheme: "http", Host: "files.example", Path: "/dir/"}
		to, err := base.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		if want := "/dir/" + name; to.Path != want || to.RawQuery != "" || to.Fragment != "" {
			t.Errorf("%q leads to %q", name, to)
		}
		got, ok := parsePath(to.Path, true)
		if !ok || got.file != "dir/"+file || got.folder != isDir {
			t.Errorf("%q is asked for as %+v", name, got)
		}
		if strings.ContainsAny(html.EscapeString(link), `"<>'`) {
			t.Errorf("%q has markup in its link %q", name, link)
		}
	})
}
