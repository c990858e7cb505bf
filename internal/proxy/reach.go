package proxy

import (
	"context"
	"errors"
	"net/http"

	"culvert/internal/upstream"
)

// pausing is a member that may be out of reach for a while, and holds what it was sent until it is back.
type pausing interface {
	// Paused is closed when the member is out of reach. It is of one pause.
	Paused() <-chan struct{}
}

var errOutOfReach = errors.New("member is out of reach")

// withinReach sends a request to a member. If it may be sent to another one instead, it is not left to wait for a member
// that is out of reach before any of the answer has come.
func withinReach(
	m upstream.Member, again bool, a *attempt, req *http.Request, send func(*http.Request) (*http.Response, error),
) (*http.Response, error) {
	p, ok := m.(pausing)
	if !again || !ok {
		return send(req)
	}
	// Not cancelled once there is an answer, whose body lives as long as the visitor's request.
	ctx, cancel := context.WithCancelCause(req.Context())
	sent := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-p.Paused():
			if a.state.CompareAndSwap(waiting, abandoned) {
				cancel(errOutOfReach)
			}
		case <-sent:
		}
	}()
	res, err := send(req.WithContext(ctx))
	close(sent)
	<-watched
	return res, err
}
