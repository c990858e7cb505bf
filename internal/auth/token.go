package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// A token is "cvt_<id>_<secret>". The prefix lets scanners for leaked secrets find it, and the id, which is no secret, lets a
// person find its entry.
const (
	tokenPrefix  = "cvt_"
	idBytes      = 4
	idLength     = 2 * idBytes
	secretBytes  = 32
	secretLength = (8*secretBytes + 5) / 6
	tokenLength  = len(tokenPrefix) + idLength + len("_") + secretLength
)

// TokenEntry is one token of a token file. The token itself is not in it.
type TokenEntry struct {
	ID      string    // 8 lower-case hexadecimal digits
	Name    string    // for people; may be empty
	Created time.Time // may be zero
	Expires time.Time // zero: never
	Grant   Grant
	// hash is the "sha256:<hex>" of the token. With it one can pose as the server, see package pki: so it is kept as a secret.
	hash Secret
}

// NewToken makes a token of 256 random bits for an entry, and completes the entry with id, hash and, if it is zero, the time
// of its making. The token is nowhere else: whoever loses it needs a new one.
func NewToken(entry TokenEntry) (Secret, TokenEntry, error) {
	if err := entry.Grant.Validate(); err != nil {
		return Secret{}, TokenEntry{}, fmt.Errorf("new token: %w", err)
	}
	var b [idBytes + secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	entry.ID = hex.EncodeToString(b[:idBytes])
	token := tokenPrefix + entry.ID + "_" + base64.RawURLEncoding.EncodeToString(b[idBytes:])
	sum := sha256.Sum256([]byte(token))
	entry.hash = NewSecret(hashPrefix + hex.EncodeToString(sum[:]))
	if entry.Created.IsZero() {
		entry.Created = time.Now().UTC().Truncate(time.Second)
	}
	return NewSecret(token), entry, nil
}

// TokenID is the id in a token, or "" if the token is not of the form that NewToken makes. It is not a secret.
func TokenID(token string) string {
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || len(token) != tokenLength || rest[idLength] != '_' {
		return ""
	}
	id, secret := rest[:idLength], rest[idLength+1:]
	if !validID(id) || strings.IndexFunc(secret, notBase64URL) >= 0 {
		return ""
	}
	return id
}

func validID(id string) bool {
	return len(id) == idLength && strings.Trim(id, "0123456789abcdef") == ""
}

func notBase64URL(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

const hashPrefix = "sha256:"

// parseHash reads "sha256:<64 lower- or upper-case hexadecimal digits>". Its errors do not show the hash.
func parseHash(s string) (sum [sha256.Size]byte, err error) {
	digits, ok := strings.CutPrefix(s, hashPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("hash: want %s and %d hexadecimal digits", hashPrefix, 2*len(sum))
	}
	return [sha256.Size]byte(b), nil
}
