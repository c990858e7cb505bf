package control

import (
	"crypto/tls"
	"errors"
	"fmt"

	carrier "culvert/internal/tunnel/tls"
)

var errNoTokenShown = errors.New("no token: this server wants one")

// ServeTLS authenticates a client on a connection of bare TLS, which it takes over, and starts its session. It returns
// once the token was answered; admit lifts the limits that hold before. The error says why there is no session. Until
// then it may be ended by closing the connection.
func (s *Server) ServeTLS(conn *tls.Conn, admit func()) error {
	token, err := carrier.ReadToken(conn)
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("token: %w", err)
	}
	bearer, err := s.cfg.Verify(token)
	if err != nil {
		if token == "" {
			err = errNoTokenShown
		}
		s.refusals.log(s.cfg.Log, conn.RemoteAddr().String(), err)
		return refuse(conn, carrier.Refused, err)
	}
	if !s.begin() {
		return refuse(conn, carrier.GoingDown, errStopping)
	}
	admit()
	if err := carrier.Answer(conn, carrier.OK, ""); err != nil {
		s.wait.Done()
		_ = conn.Close()
		return fmt.Errorf("answer: %w", err)
	}
	s.start(carrier.Accept(conn), bearer, conn.RemoteAddr().String())
	return nil
}

// refuse tells a client why it gets no session.
func refuse(conn *tls.Conn, status carrier.Status, why error) error {
	return errors.Join(why, carrier.Answer(conn, status, why.Error()), conn.Close())
}
