package control

import (
	"net"
	"net/http"
	"sync"
	"testing"

	"culvert/internal/mux"
	"culvert/internal/tunnel"
)

// frozenClient connects, offers, and then reads nothing more from its connection until it is thawed, as a stopped
// process does.
func frozenClient(t *testing.T, b *bench, h tunnel.Hello) (s *tunnel.Session, thaw func()) {
	t.Helper()
	d := b.dial
	d.Header = http.Header{"Authorization": {"Bearer " + shared}}
	raw, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn := &freezable{Conn: raw}
	m, err := mux.Client(conn, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err = tunnel.Connect(t.Context(), m, h)
	if err != nil {
		t.Fatal(err)
	}
	conn.ice.Lock()
	return s, func() {
		conn.ice.Unlock()
		s.Close(nil)
	}
}

// freezable blocks what comes while its ice is locked.
type freezable struct {
	net.Conn
	ice sync.Mutex
}

func (c *freezable) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.ice.Lock() // what has come is kept back
	defer c.ice.Unlock()
	return n, err
}
