package auth

import "crypto/sha256"

// Bearer is whoever came with a token that was verified. What it may do is looked up anew each time, without a lock, so that
// it is up to date for as long as the session lasts. Only Verify and Anyone make one.
type Bearer struct {
	anyone   bool
	verifier *Verifier // nil for Anyone
	id       string
	name     string // when it came
	sum      [sha256.Size]byte
}

// Anyone is the bearer of no token on a server that asks for none (--insecure-no-auth): it is granted everything.
func Anyone() *Bearer { return &Bearer{anyone: true} }

// ID is the id of the token; "" for the shared one. It is not a secret.
func (b *Bearer) ID() string { return b.id }

// Name is the token's for people, as it was when its bearer came; "" for the shared one and for one that has none.
func (b *Bearer) Name() string { return b.name }

// String names the token for logs; see Whose.
func (b *Bearer) String() string { return Whose(b.id, b.name) }

// Permit is nil if the bearer may do this now, else ErrRevoked, ErrExpired or a *Denied.
func (b *Bearer) Permit(a Action) error {
	if b.anyone {
		return Everything().Permit(a)
	}
	c, err := b.current()
	if err != nil {
		return err
	}
	return c.grant.Permit(a)
}

// Valid is nil while the token is good, else ErrRevoked or ErrExpired.
func (b *Bearer) Valid() error {
	if b.anyone {
		return nil
	}
	_, err := b.current()
	return err
}

func (b *Bearer) current() (*credential, error) {
	if b.verifier == nil { // a Bearer that Verify never made
		return nil, ErrUnknownToken
	}
	c := b.verifier.credential(b.id)
	switch {
	case c == nil, !b.verifier.compare(c, &b.sum): // the id may have come to be another token's
		return nil, ErrRevoked
	case b.verifier.expired(c):
		return nil, ErrExpired
	}
	return c, nil
}

// Whose is how a token is called in logs and tables: by its name and id, or as the shared one, whose id is "".
func Whose(id, name string) string {
	switch {
	case id == "":
		return "the shared token"
	case name == "":
		return id
	}
	return name + " (" + id + ")"
}
