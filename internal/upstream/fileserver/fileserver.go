// Package fileserver serves the files of one folder over HTTP, to strangers.
//
// Nothing outside the folder is ever served, whatever the path says and whatever links point to, also while the folder
// is being changed: every open goes through os.Root. Names that begin with a dot do not exist, folders are not listed,
// and what is neither a file nor a folder (a FIFO, a device, a socket) is not opened, unless the operator says
// otherwise for the first two. It serves files as they are: no compression, no rendering, no uploads.
//
// Links that stay within the folder are followed, also to names that begin with a dot: so lay out Kubernetes and
// deployment tools what they mount (index.html -> ..data/index.html).
package fileserver

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Config says what to serve to whom.
type Config struct {
	// Root is the folder. It may be replaced by another of that path at any time, as builds and deployments do.
	Root string
	// AllowBrowsing lists folders that have no index.html.
	AllowBrowsing bool
	// Hidden serves and lists names that begin with a dot, too.
	Hidden bool
	// Authorize decides on a user and password, see BasicAuth; nil lets everyone in.
	Authorize func(user, password string) bool
	// Log gets what the operator has to mend; nil means no log.
	Log *slog.Logger
}

// The answers without a file.
const (
	notFoundText = "unable to find requested file"
	faultText    = "unable to read requested file"
)

const indexFile = "index.html"

const faultLogSeconds = 10

// Handler serves the folder, which must exist. It holds nothing open between requests.
// It is safe for concurrent use.
func Handler(cfg Config) (http.Handler, error) {
	dir, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("web root %s: %w", cfg.Root, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("web root: %w", err)
	}
	if err := root.Close(); err != nil {
		return nil, fmt.Errorf("web root: %w", err)
	}
	h := &handler{Config: cfg, maxListed: maxListed}
	h.Root = dir
	if h.Log == nil {
		h.Log = slog.New(slog.DiscardHandler)
	}
	return h, nil
}

type handler struct {
	Config
	maxListed int          // names in a listing
	lastFault atomic.Int64 // when a fault was logged, in Unix seconds
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.admit(w, r) {
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this is a file server: want GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	name, ok := parsePath(r.URL.Path, h.Hidden)
	if !ok {
		notFound(w)
		return
	}
	// Opened for each request: a folder that is deleted and built anew is served at once, and a session that stays up
	// for weeks keeps no old one alive. It costs two system calls.
	root, err := os.OpenRoot(h.Root)
	if err != nil {
		h.fault(w, r, err)
		return
	}
	defer root.Close()
	if err := h.serve(w, r, root, name); err != nil {
		h.refuse(w, r, err)
	}
}

// serve answers with the file or folder of that name. An error is returned before anything was written.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, root *os.Root, name name) error {
	f, err := open(root, name.file)
	if err != nil {
		return err
	}
	defer f.Close()
	switch {
	case !f.info.IsDir() && name.folder:
		return fs.ErrNotExist // "file/" is not the file
	case !f.info.IsDir():
		serveFile(w, r, f)
		return nil
	}

	index, err := open(root, path.Join(name.file, indexFile))
	if err == nil {
		defer index.Close()
	}
	hasIndex := err == nil && index.info.Mode().IsRegular()
	switch {
	case isFault(err):
		return err
	case !hasIndex && !h.AllowBrowsing:
		return fs.ErrNotExist // whether there is a folder is not told
	case !name.folder:
		redirectToFolder(w, r, name)
		return nil
	case hasIndex:
		serveFile(w, r, index)
		return nil
	default:
		return h.list(w, root, f, name)
	}
}

// serveFile sends a regular file: ranges, conditions and HEAD as the standard library does them.
func serveFile(w http.ResponseWriter, r *http.Request, f *file) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	if t := typeByName(f.info.Name()); t != "" {
		header.Set("Content-Type", t)
	}
	if tag := etag(f.info); tag != "" {
		header.Set("ETag", tag)
	}
	http.ServeContent(w, r, f.info.Name(), f.info.ModTime(), f.File) // *os.File, for sendfile
}

// etag tells versions of a file apart that were written within one second, which Last-Modified cannot. Files without a
// true time, as in reproducible images, have none.
func etag(info fs.FileInfo) string {
	t := info.ModTime()
	if !t.After(time.Unix(1, 0)) {
		return ""
	}
	return `"` + strconv.FormatInt(t.UnixNano(), 36) + "-" + strconv.FormatInt(info.Size(), 36) + `"`
}

// redirectToFolder adds the slash that relative links in the folder's page need. The target is relative to the
// request, so that no Host or forwarded header and no path of two slashes can lead elsewhere, and a prefix that a proxy
// in front has taken off does no harm.
func redirectToFolder(w http.ResponseWriter, r *http.Request, name name) {
	target := href(path.Base(name.file) + "/")
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusMovedPermanently)
}

// refuse answers for a file that cannot be opened. All that a visitor can cause is one and the same 404; the rest is
// the operator's to mend.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if isFault(err) {
		h.fault(w, r, err)
		return
	}
	if !errors.Is(err, fs.ErrNotExist) {
		h.Log.Debug("file not served", "path", shown(r.URL.Path), "error", err)
	}
	notFound(w)
}

// fault answers for what is wrong on this side. It is logged now and then only: while it lasts every request meets it,
// and strangers decide how many these are.
func (h *handler) fault(w http.ResponseWriter, r *http.Request, err error) {
	now, last := time.Now().Unix(), h.lastFault.Load()
	if now-last >= faultLogSeconds && h.lastFault.CompareAndSwap(last, now) {
		h.Log.Error("files not readable", "root", h.Root, "path", shown(r.URL.Path), "error", err)
	}
	http.Error(w, faultText, http.StatusInternalServerError)
}

// shown is as much of a stranger's path as a log line needs.
func shown(path string) string {
	const enough = 200
	if len(path) > enough {
		return path[:enough] + "…"
	}
	return path
}

func notFound(w http.ResponseWriter) { http.Error(w, notFoundText, http.StatusNotFound) }

// isFault says whether an error is this machine's fault rather than a property of the path.
func isFault(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EIO)
}
