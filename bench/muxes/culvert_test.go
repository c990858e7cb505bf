package muxes

import (
	"context"
	"errors"
	"net"

	"culvert/internal/mux"
)

type culvertSession struct{ s *mux.Session }

func (s culvertSession) Open() (stream, error) {
	st, err := s.s.Open(context.Background(), nil)
	return culvertStream{st}, err
}

// Accept accepts the stream and says so, which the neighbours have no word for.
func (s culvertSession) Accept() (stream, error) {
	st, err := s.s.Accept(context.Background())
	if err == nil {
		err = st.Confirm()
	}
	return culvertStream{st}, err
}

func (s culvertSession) Close() error {
	s.s.Close(errors.New("the benchmark is over"))
	return nil
}

type culvertStream struct{ *mux.Stream }

// Close is what the neighbours call so: an end, not a reset.
func (s culvertStream) Close() error { return s.End() }

func culvertMux() multiplexer {
	return multiplexer{
		name: "culvert",
		client: func(conn net.Conn) (session, error) {
			s, err := mux.Client(conn, mux.Config{MaxLinks: 1})
			return culvertSession{s}, err
		},
		server: func(conn net.Conn) (session, error) {
			s, err := mux.Server(conn, mux.Config{MaxLinks: 1})
			return culvertSession{s}, err
		},
	}
}
