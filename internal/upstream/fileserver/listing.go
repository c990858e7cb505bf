package fileserver

import (
	"cmp"
	"errors"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxListed bounds the work and memory of one listing. A folder with more names is a data store, not something that a
// person browses.
const maxListed = 10_000

type entry struct {
	name string // with a slash behind that of a folder
	info fs.FileInfo
}

// list answers with the names in a folder that can be fetched. An error is returned before anything was written.
func (h *handler) list(w http.ResponseWriter, root *os.Root, folder *file, name name) error {
	names, err := folder.Readdirnames(h.maxListed + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	more := len(names) > h.maxListed
	if more {
		names = names[:h.maxListed]
	}
	entries := make([]entry, 0, len(names))
	for _, n := range names {
		if !validName(n, h.Hidden) {
			continue
		}
		// Through the root again, so that a link says nothing about what it points to outside.
		info, err := root.Stat(path.Join(name.file, n))
		if err != nil || !servable(info) {
			continue
		}
		if info.IsDir() {
			n += "/"
		}
		entries = append(entries, entry{n, info})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if d := boolOrder(b.info.IsDir()) - boolOrder(a.info.IsDir()); d != 0 {
			return d // folders first
		}
		return cmp.Compare(a.name, b.name)
	})

	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-cache")
	// Should a name ever get through as markup, it can do nothing.
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
	limit := 0
	if more {
		limit = h.maxListed
	}
	_, _ = io.WriteString(w, page(name.file, entries, limit)) // a visitor who has gone needs no page
	return nil
}

// page is the listing as HTML. Names come from whoever can write to the folder. A limit that is not zero cut the list.
func page(folder string, entries []entry, limit int) string {
	title := "/"
	if folder != "." {
		title += folder + "/"
	}
	title = html.EscapeString(title)

	var b strings.Builder
	b.WriteString("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n" +
		"<meta name=\"viewport\" content=\"width=device-width\">\n" +
		"<meta name=\"color-scheme\" content=\"light dark\">\n<title>" + title + "</title>\n</head>\n<body>\n" +
		"<h1>" + title + "</h1>\n<table>\n")
	if folder != "." {
		b.WriteString("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n")
	}
	for _, e := range entries {
		size := ""
		if !e.info.IsDir() {
			size = strconv.FormatInt(e.info.Size(), 10)
		}
		b.WriteString("<tr><td><a href=\"" + html.EscapeString(href(e.name)) + "\">" + html.EscapeString(e.name) +
			"</a></td><td align=\"right\">" + size +
			"</td><td>" + e.info.ModTime().UTC().Format("2006-01-02 15:04:05") + "</td></tr>\n")
	}
	b.WriteString("</table>\n")
	if limit != 0 {
		b.WriteString("<p>Only " + strconv.Itoa(limit) + " names are listed, there are more.</p>\n")
	}
	b.WriteString("</body>\n</html>\n")
	return b.String()
}

// href is a link from the folder's page to a name in it. The "./" keeps a name with a colon from being a scheme.
func href(name string) string {
	file, isDir := strings.CutSuffix(name, "/")
	link := "./" + url.PathEscape(file)
	if isDir {
		link += "/"
	}
	return link
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}
