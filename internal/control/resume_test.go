package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/tunnel"
)

// raw is a connection with a credential, on which nothing is said yet.
func (b *bench) raw(t *testing.T, token string) net.Conn {
	t.Helper()
	d := b.dial
	d.Header = http.Header{"Authorization": {"Bearer " + token}}
	conn, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// cuttable is a client's session and the connection under it.
func (b *bench) cuttable(t *testing.T, token string, h tunnel.Hello) (*tunnel.Session, net.Conn) {
	t.Helper()
	conn := b.raw(t, token)
	m, err := mux.Client(conn, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := tunnel.Connect(t.Context(), m, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(nil) })
	return s, conn
}

func TestTunnelsAreUpAgainAfterAPause(t *testing.T) {
	b := serve(t, nil)
	s, conn := b.cuttable(t, shared, hello("a", 1, 1, ssh.String()))
	b.plane.await(t, ssh, 1)
	_ = conn.Close()
	b.plane.await(t, ssh, 0)
	again := b.raw(t, shared)
	if err := s.Attach(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	b.plane.await(t, ssh, 1)
	if got, want := b.server.Clients()[0].RemoteAddr, again.LocalAddr().String(); got != want {
		t.Errorf("the client is shown at %s, it is at %s", got, want)
	}
}

// occupied publishes nothing while its port is taken.
type occupied struct {
	*plane
	taken atomic.Bool
}

func (o *occupied) Publish(offered Offered) (Publication, error) {
	if o.taken.Load() {
		return nil, errors.New("port 2222 cannot be opened: in use")
	}
	return o.plane.Publish(offered)
}

func TestATunnelWhosePortWasTakenInAPauseComesBack(t *testing.T) {
	o := &occupied{plane: newPlane()}
	b := serve(t, func(c *Config) { c.Publisher = o })
	s, conn := b.cuttable(t, shared, hello("a", 1, 1, ssh.String()))
	o.await(t, ssh, 1)
	o.taken.Store(true)
	_ = conn.Close()
	o.await(t, ssh, 0)
	if err := s.Attach(t.Context(), b.raw(t, shared)); err != nil {
		t.Fatal(err)
	}
	o.taken.Store(false)
	o.await(t, ssh, 1)
}

func TestNobodyJoinsASessionOfAnotherToken(t *testing.T) {
	file, token := tokenFile(t, `{hosts: ["*"], ports: ["1-65535"]}`)
	verifier, err := auth.New(auth.Config{Shared: auth.NewSecret(shared), File: file})
	if err != nil {
		t.Fatal(err)
	}
	b := serve(t, func(c *Config) { c.Verify = verifier.Verify })
	s, _ := b.cuttable(t, shared, hello("a", 1, 1, ssh.String()))
	b.plane.await(t, ssh, 1)
	// Id and secret are right, the credential is another's. The session, which has a link, goes on.
	if err := s.Attach(t.Context(), b.raw(t, token)); !errors.Is(err, mux.ErrUnknownSession) {
		t.Errorf("the link got %v, want that the session is unknown", err)
	}
	if s.Err() != nil || s.Live() != 1 {
		t.Errorf("the session has %d links, %v", s.Live(), s.Err())
	}
}

func TestARevokedCredentialEndsAPausedSession(t *testing.T) {
	file, token := tokenFile(t, `{ports: ["2222"]}`)
	verifier, err := auth.New(auth.Config{File: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		_ = verifier.Run(ctx)
	}()
	defer func() {
		cancel()
		<-watching
	}()
	b := serve(t, func(c *Config) { c.Verify = verifier.Verify })
	_, conn := b.cuttable(t, token, hello("i", 1, 1, ssh.String()))
	b.plane.await(t, ssh, 1)
	_ = conn.Close()
	b.plane.await(t, ssh, 0)
	if err := os.WriteFile(file, []byte("tokens: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the session's end", func() bool { return len(b.server.Clients()) == 0 })
}

func TestAServerThatGoesDownDoesNotWaitForAClientOutOfReach(t *testing.T) {
	b := serve(t, nil)
	_, conn := b.cuttable(t, shared, hello("a", 1, 1, ssh.String()))
	b.plane.await(t, ssh, 1)
	b.server.GoAway(t.Context())
	_ = conn.Close()
	await(t, "the session's end", func() bool { return len(b.server.Clients()) == 0 })
}
