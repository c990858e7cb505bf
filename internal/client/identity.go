package client

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Identity is how servers know a client again: docs/protocol.md has the rules.
type Identity struct {
	ID       string `json:"id"`       // the operator's name
	Instance string `json:"instance"` // one installation's state folder
	Epoch    uint64 `json:"epoch"`    // one process; grows
}

// TakeIdentity reads the identity of a state folder, or makes one, and begins a new epoch of it. The id replaces the
// stored one for this process, if given. While release is not called, the identity is this process's alone.
//
// A folder that another process holds, or that cannot be used, gives a random instance: two processes of one folder
// are two members, and a missing folder never keeps a client from working.
func TakeIdentity(dir, id string, log *slog.Logger) (identity Identity, release func()) {
	identity, release, err := takeStored(dir, id)
	if err == nil {
		return identity, release
	}
	if !errors.Is(err, errNoState) {
		log.Warn("going on as a new instance", "reason", err, "hint", "give each client a --state-dir of its own")
	}
	if id != "" {
		identity.ID = id
	}
	if identity.ID == "" {
		identity.ID = randomID()
	}
	identity.Instance = randomID()
	identity.Epoch = uint64(time.Now().UnixNano())
	return identity, func() {}
}

var (
	errNoState = errors.New("no state folder")
	errHeld    = errors.New("another process of this client is running")
)

const identityFile = "client.json"

// takeStored reports the stored identity even with an error, as far as there is one.
func takeStored(dir, id string) (stored Identity, release func(), err error) {
	if dir == "" {
		return Identity{}, nil, errNoState
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Identity{}, nil, fmt.Errorf("state folder: %w", err)
	}
	path := filepath.Join(dir, identityFile)
	lock, err := lockFile(filepath.Join(dir, "client.lock")) // first: the holder may be about to write
	if err != nil {
		stored, _ = readIdentity(path) // for its id
		return stored, nil, fmt.Errorf("state folder %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if stored, err = readIdentity(path); err != nil {
		return Identity{}, nil, err
	}
	if stored.ID == "" {
		stored.ID = randomID()
	}
	if stored.Instance == "" {
		stored.Instance = randomID()
	}
	stored.Epoch = max(stored.Epoch+1, uint64(time.Now().UnixNano()))
	keep := stored
	if id != "" {
		stored.ID = id
		if keep.ID == "" {
			keep.ID = id
		}
	}
	if err := writeIdentity(path, keep); err != nil {
		return stored, nil, err
	}
	return stored, func() { lock.Close() }, nil
}

func readIdentity(path string) (Identity, error) {
	p, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, nil
	}
	var i Identity
	if err == nil {
		err = json.Unmarshal(p, &i)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("state file %s: %w", path, err)
	}
	return i, nil
}

// writeIdentity replaces the file whole, so that a crash leaves the old one or the new one.
func writeIdentity(path string, i Identity) error {
	p, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("state file %s: %w", path, err)
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, append(p, '\n'), 0o600); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	return nil
}

func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return hex.EncodeToString(b[:])
}
