package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"culvert/internal/upstream"
)

// revocable is a member that may lose its right to connections.
type revocable struct {
	upstream.Member
	revoked atomic.Bool
}

func (m *revocable) Permitted() error {
	if m.revoked.Load() {
		return errors.New("told to")
	}
	return nil
}

// TestKeptConnectionsEndWithTheRightToThem takes the right from a member while requests go over a connection of its pool.
func TestKeptConnectionsEndWithTheRightToThem(t *testing.T) {
	m := &revocable{Member: &told{name: "m", protocol: upstream.HTTP1}}
	service := member(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") })
	refuse := failing("m", upstream.NotAllowed, false)
	m.Member.(*told).dial = service.Dial
	s := newSite(t, nil, m)
	for range 2 {
		if res, _ := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode != http.StatusOK {
			t.Fatalf("got %d", res.StatusCode)
		}
	}
	m.Member.(*told).dial = refuse.dial
	m.revoked.Store(true)
	if res, _ := s.do(t, http.MethodGet, "/", nil, nil); res.StatusCode == http.StatusOK {
		t.Error("answered over a connection that was kept")
	}
}
