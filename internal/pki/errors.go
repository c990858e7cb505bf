package pki

import (
	"errors"
	"fmt"
)

// The ways in which a bootstrap fails that are not the network's or TLS's.
var (
	// ErrShortToken refuses a token that could be found by guessing at a proof.
	ErrShortToken = fmt.Errorf("the token has fewer than %d characters", MinToken)
	// ErrProof means that whoever answered does not know the token, or that the CA was exchanged on the way.
	ErrProof = errors.New("the proof does not match")
)

// AnswerError is an answer that no culvert server with auto-TLS gives.
type AnswerError struct {
	Status int   // of the HTTP response; 0 if it was none
	Err    error // what is wrong with it, nil if the status says it
}

func (e *AnswerError) Error() string {
	switch {
	case e.Status == 0:
		return fmt.Sprintf("not an HTTP answer: %s", e.Err)
	case e.Err == nil:
		return fmt.Sprintf("status %d", e.Status)
	default:
		return fmt.Sprintf("not the answer to a request for a CA: %s", e.Err)
	}
}

func (e *AnswerError) Unwrap() error { return e.Err }
