package fileserver

import (
	"path/filepath"
	"runtime"
	"strings"
)

// name is what a request's path asks for.
type name struct {
	file   string // slash-separated and below the root, "." for the root itself
	folder bool   // the path ended in a slash
}

// parsePath takes the decoded path of a request, a stranger's bytes. It accepts only what a well-behaved client can
// ask for; there is nothing to clean: a path with dot segments, a backslash or a NUL is no file's. Several slashes
// count as one.
func parsePath(p string, hidden bool) (name, bool) {
	if p == "" { // of "GET http://host HTTP/1.1"
		p = "/"
	}
	if p[0] != '/' {
		return name{}, false
	}
	segments := make([]string, 0, strings.Count(p, "/"))
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "" {
			continue
		}
		if !validName(segment, hidden) {
			return name{}, false
		}
		segments = append(segments, segment)
	}
	if len(segments) == 0 {
		return name{file: ".", folder: true}, true
	}
	return name{file: strings.Join(segments, "/"), folder: p[len(p)-1] == '/'}, true
}

// validName says whether a file of that name, a single segment, can be asked for. It is the same rule for listing and
// serving: what is listed can be fetched.
func validName(s string, hidden bool) bool {
	if s == "." || s == ".." || strings.ContainsAny(s, `/\`) {
		return false
	}
	if !hidden && s[0] == '.' {
		return false
	}
	if !hidden && runtime.GOOS == "windows" && shortName(s) {
		return false
	}
	// It knows NUL, invalid UTF-8 and, on Windows, device names, colons and what else the system reads otherwise.
	_, err := filepath.Localize(s)
	return err == nil
}

// shortName says whether Windows may know a file with a longer name by this one, as it knows .git by GIT~1.
func shortName(s string) bool {
	_, after, ok := strings.Cut(s, "~")
	return ok && after != "" && after[0] >= '0' && after[0] <= '9'
}
