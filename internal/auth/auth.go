// Package auth verifies credentials and says what their bearers may do.
//
// A Verifier knows one shared token, a file of many, or both; a Bearer asks it anew for every action, so that a changed file
// reaches sessions that are open. One function, Grant.Permit, decides at registration and for every stream. Tokens are
// compared by their SHA-256 in constant time, kept only as that, and a Secret prints as "***" however it is printed.
//
// The package listens to nobody and limits no rate: whoever calls Verify does.
package auth

import "errors"

// What is wrong with a credential. None says anything of other tokens.
var (
	// ErrNoCredential means that there is neither a shared token nor a token file to verify against.
	ErrNoCredential = errors.New("no credential: neither a token nor a token file is given")
	// ErrUnknownToken means that the token is none of those known, or empty.
	ErrUnknownToken = errors.New("unknown token")
	// ErrExpired means that the token was right and its time has passed.
	ErrExpired = errors.New("the token has expired")
	// ErrRevoked means that the token was right when it was verified, and has been taken out of the token file since.
	ErrRevoked = errors.New("the token has been revoked")
)
