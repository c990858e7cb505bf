package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// leeway is how long after its expiry a token is still good, for the clock of whoever wrote the time.
const leeway = time.Minute

// Config says what a Verifier verifies against: at least one of Shared and File.
type Config struct {
	Shared Secret           // the token that is granted everything
	File   string           // path of a token file
	Now    func() time.Time // wall clock, for expiry; nil: time.Now
	Log    *slog.Logger     // for what the file's watcher finds; nil: nowhere
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	now      func() time.Time
	log      *slog.Logger
	shared   *credential // nil if there is none
	sharedID string      // the shared token's TokenID, often ""
	decoy    [sha256.Size]byte
	file     watchedFile

	// tokens are those of the file by id. The map is never changed, but replaced.
	tokens atomic.Pointer[map[string]*credential]
}

// credential is a token that is known.
type credential struct {
	name    string            // for people; may be empty
	sum     [sha256.Size]byte // of the token
	expires time.Time         // zero: never
	grant   Grant
}

// New makes a Verifier and reads the token file. What is wrong with the file is named with file and line; to have no tokens
// is not wrong, since Run notices when it gets some. ErrNoCredential if there is nothing to verify against.
func New(cfg Config) (*Verifier, error) {
	if cfg.Shared.Empty() && cfg.File == "" {
		return nil, ErrNoCredential
	}
	v := &Verifier{now: cfg.Now, log: cfg.Log, file: watchedFile{path: cfg.File}}
	if v.now == nil {
		v.now = time.Now
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if !cfg.Shared.Empty() {
		v.shared = &credential{sum: sha256.Sum256([]byte(cfg.Shared.Reveal())), grant: Everything()}
		v.sharedID = TokenID(cfg.Shared.Reveal())
	}
	v.tokens.Store(&map[string]*credential{})
	if cfg.File != "" {
		content, _, err := v.file.read()
		if err == nil {
			err = v.load(content)
		}
		if err != nil {
			return nil, fmt.Errorf("token file: %w", err)
		}
	}
	return v, nil
}

// load replaces the tokens of the file.
func (v *Verifier) load(content []byte) error {
	entries, err := parseTokens(v.file.path, content)
	if err != nil {
		return err
	}
	tokens := make(map[string]*credential, len(entries))
	for _, e := range entries {
		sum, err := parseHash(e.hash.Reveal())
		if err != nil {
			return err
		}
		tokens[e.ID] = &credential{e.Name, sum, e.Expires, e.Grant}
	}
	v.tokens.Store(&tokens)
	return nil
}

// Verify says whose token it is. ErrUnknownToken, or ErrExpired if the token is right but for its time.
//
// A token takes the same time whether none, one or both of its id and its secret are right: digests are compared, in constant
// time, and where there is none a decoy.
func (v *Verifier) Verify(token string) (*Bearer, error) {
	sum := sha256.Sum256([]byte(token))
	id := TokenID(token)
	shared := v.compare(v.shared, &sum)
	own := v.compare((*v.tokens.Load())[id], &sum)
	switch {
	case token == "":
		return nil, ErrUnknownToken
	case shared:
		id = ""
	case !own:
		return nil, ErrUnknownToken
	}
	b := &Bearer{verifier: v, id: id, sum: sum}
	c, err := b.current()
	if err != nil {
		return nil, err
	}
	b.name = c.name
	return b, nil
}

// compare takes as long for no credential as for a wrong one.
func (v *Verifier) compare(c *credential, sum *[sha256.Size]byte) bool {
	want, known := &v.decoy, 0
	if c != nil {
		want, known = &c.sum, 1
	}
	return subtle.ConstantTimeCompare(want[:], sum[:])&known == 1
}

// Digest is the SHA-256 of the token with an id, "" for the shared one: the server's part of a proof that it knows the token.
// It is as secret as a key. An expired token still has one, so that its bearer can be told that it has expired.
func (v *Verifier) Digest(id string) (sum [sha256.Size]byte, ok bool) {
	if c := v.credential(id); c != nil {
		return c.sum, true
	}
	// A shared token may be of the form that carries an id, and then a client asks by it.
	if id == v.sharedID && v.shared != nil {
		return v.shared.sum, true
	}
	return sum, false
}

func (v *Verifier) credential(id string) *credential {
	if id == "" {
		return v.shared
	}
	return (*v.tokens.Load())[id]
}

func (v *Verifier) expired(c *credential) bool {
	return !c.expires.IsZero() && v.now().After(c.expires.Add(leeway))
}
