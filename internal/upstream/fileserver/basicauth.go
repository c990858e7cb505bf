package fileserver

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
)

// BasicAuth makes a Config.Authorize of one user and password. What it takes to compare tells nothing about either.
// Without a password it refuses everyone: an empty one is a setting that got lost.
func BasicAuth(user, password string) func(user, password string) bool {
	wantUser, wantPassword := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(password))
	set := password != ""
	return func(user, password string) bool {
		gotUser, gotPassword := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(password))
		// Both are compared in any case, and as digests, so that neither length nor place of a difference shows.
		return subtle.ConstantTimeCompare(gotUser[:], wantUser[:])&
			subtle.ConstantTimeCompare(gotPassword[:], wantPassword[:]) == 1 && set
	}
}

// admit answers 401 and says no if the request lacks the credentials.
func (h *handler) admit(w http.ResponseWriter, r *http.Request) bool {
	if h.Authorize == nil {
		return true
	}
	if user, password, ok := r.BasicAuth(); ok && h.Authorize(user, password) {
		return true
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="files", charset="UTF-8"`)
	http.Error(w, "user name and password are needed", http.StatusUnauthorized)
	return false
}
