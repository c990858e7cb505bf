package mux

import "context"

// Flush waits until the peer's mux has received everything that this side has sent so far, so that a Close after it
// takes nothing back. It opens a stream to have it acknowledged: the link keeps the order. The peer refuses a stream
// without metadata, or drops it.
func (s *Session) Flush(ctx context.Context) error {
	st, err := s.Open(ctx, nil)
	if err != nil {
		return err
	}
	defer st.Reset()
	select {
	case <-st.Received():
		return nil
	case <-st.Decided():
		return st.Result(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}
